//! Entry points of the fuzz targets in `fuzz/`: the arguments of tools.

use rmcp::model::JsonObject;

use super::args::{CanArgs, HistoryArgs, ListArgs, NoArgs, SourceArgs, read};
use crate::core::time::Timestamp;

/// Reads the arguments of a call, as those of each tool.
pub fn arguments(args: &JsonObject, now: Timestamp) {
    let _ = read::<NoArgs>(args.clone()).is_ok();
    if let Ok(list) = read::<ListArgs>(args.clone()) {
        let _ = (list.platform().is_ok(), list.source().is_ok(), list.offset());
        assert!((1..=200).contains(&list.limit()));
    }
    if let Ok(source) = read::<SourceArgs>(args.clone()) {
        let _ = (source.source().is_ok(), source.max_age().is_ok());
    }
    if let Ok(can) = read::<CanArgs>(args.clone()) {
        let _ = can.action();
    }
    if let Ok(history) = read::<HistoryArgs>(args.clone()) {
        let _ = history.source().is_ok();
        assert!((1..=200).contains(&history.limit()));
        if let Ok(Some(since)) = history.since(now) {
            let _ = since.to_string();
        }
    }
}
