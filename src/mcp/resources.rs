//! Sources as resources: the same JSON as the tools answer.

use percent_encoding::percent_decode_str;
use rmcp::model::{
    ListResourceTemplatesResult, ListResourcesResult, ReadResourceResponse, ReadResourceResult, Resource,
    ResourceContents, ResourceTemplate,
};
use serde::Serialize;

use super::Tools;
use super::answers::{NoAnswer, Refusal, source, sources};
use super::args::{ListArgs, SourceArgs};
use super::calls::Failed;
use crate::core::code::Code;

const ALL: &str = "bitbrat://sources";
const ONE: &str = "bitbrat://sources/";
const JSON: &str = "application/json";
/// Sources that are listed as resources at most; every other one can be read by the template.
const LISTED: usize = 100;

pub(super) async fn list(tools: &Tools) -> Result<ListResourcesResult, Failed> {
    let sources = tools.reading.sources(None).await?;
    let all = Resource::new(ALL, "sources")
        .with_title("Sources")
        .with_description("The channels and guilds that the bot works in, with their status and its age")
        .with_mime_type(JSON);
    let one = |row: &crate::view::source_row::SourceRow| {
        let key = row.summary.key.to_string();
        Resource::new(format!("{ONE}{key}"), key)
            .with_title(row.named())
            .with_mime_type(JSON)
    };
    let listed = sources.rows.iter().take(LISTED).map(one);
    Ok(ListResourcesResult::with_all_items(
        std::iter::once(all).chain(listed).collect(),
    ))
}

pub(super) fn templates() -> ListResourceTemplatesResult {
    let one = ResourceTemplate::new(format!("{ONE}{{id}}"), "source")
        .with_title("One source")
        .with_description(
            "A channel or guild by `platform:id` or name, with the evidence and reason of each status",
        )
        .with_mime_type(JSON);
    ListResourceTemplatesResult::with_all_items(vec![one])
}

pub(super) async fn read(tools: &Tools, uri: &str) -> Result<ReadResourceResponse, Failed> {
    let text = if uri.trim_end_matches('/') == ALL {
        let read = sources(tools, &ListArgs::default()).await;
        json(read.map(|listed| listed.list))?
    } else {
        let Some(id) = uri.strip_prefix(ONE) else {
            let detail = format!("the resources are {ALL} and {ONE}ID");
            return Err(Failed::of(Code::ApiUnknownSource, detail));
        };
        let id = percent_decode_str(id).decode_utf8_lossy();
        let read = source(tools, &id, &SourceArgs::default()).await;
        json(read.map(|listed| listed.list))?
    };
    let contents = ResourceContents::text(crate::secrets::mask(&text), uri).with_mime_type(JSON);
    Ok(ReadResourceResult::new(vec![contents]).into())
}

fn json(read: Result<impl Serialize, NoAnswer>) -> Result<String, Failed> {
    match read {
        Ok(list) => Ok(serde_json::to_string(&list).expect("a list is plain JSON")),
        Err(NoAnswer::Failed(failed)) => Err(failed),
        Err(NoAnswer::Refused(Refusal { code, detail, .. })) => Err(match code {
            Code::NoEvidence => Failed::of(code, detail),
            _ => Failed::of(Code::ApiUnknownSource, detail),
        }),
    }
}
