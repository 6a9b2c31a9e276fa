//! What each tool answers: the JSON of the command of the same name, and the same in sentences.

use rmcp::model::JsonObject;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::args::{self, CanArgs, HistoryArgs, ListArgs, NoArgs, SourceArgs};
use super::calls::{Answered, Failed};
use super::{Tools, text};
use crate::core::code::Code;
use crate::core::source::PlatformName;
use crate::secrets;
use crate::store::{HistoryEntry, StoreError};
use crate::view::actions::actions;
use crate::view::answer::AnswerItem;
use crate::view::attention::{self, Attention};
use crate::view::can::{self, Limits};
use crate::view::cell::escaped;
use crate::view::detail::{SourceDetail, SourceInFull};
use crate::view::envelope::Envelope;
use crate::view::found::Found;
use crate::view::history::HistoryItem;
use crate::view::is_live as live;
use crate::view::item::SourceItem;
use crate::view::reading::{self, NotFound};

/// Transitions shown with one source, as `sources describe` shows them.
const RECENT: usize = 10;
/// Characters of a foreign text in a problem.
const SHOWN: usize = 300;

/// The JSON of a command, and why it has no entries where the question could not be answered.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "{T}Result")]
pub(super) struct Outcome<T> {
    #[serde(flatten)]
    list: Envelope<T>,
    /// Why the question could not be answered. Nothing follows from it about any source.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Refusal>,
}

/// Why a question could not be answered, although nothing is broken.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(super) struct Refusal {
    /// The stable name of the problem.
    #[schemars(with = "String")]
    pub(super) code: Code,
    /// What is wrong, and what to do.
    pub(super) detail: String,
    /// The sources that have the name, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sources: Vec<String>,
}

impl Refusal {
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: shown(&detail.into()),
            sources: Vec::new(),
        }
    }
}

/// Returns a text that may repeat an argument: not at length, and without anything that a screen obeys or does not show.
pub(super) fn shown(text: &str) -> String {
    escaped(text).chars().take(SHOWN).collect()
}

/// Why there is no answer.
pub(super) enum NoAnswer {
    /// An expected outcome.
    Refused(Refusal),
    Failed(Failed),
}

impl From<Refusal> for NoAnswer {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StoreError> for NoAnswer {
    fn from(error: StoreError) -> Self {
        match error {
            // One document that cannot be used is no failure of the store: nothing is known of that source.
            StoreError::Unusable { document_id, source } => {
                let detail = format!(
                    "the stored document of `{document_id}` cannot be used ({source}); run `bitbrat doctor`"
                );
                Self::Refused(Refusal::new(Code::NoEvidence, detail))
            }
            error => Self::Failed(error.into()),
        }
    }
}

impl From<NotFound> for NoAnswer {
    fn from(error: NotFound) -> Self {
        let refusal = match error {
            NotFound::Invalid(reason) => Refusal::new(Code::ApiInvalidSource, reason),
            NotFound::Unknown(wanted) => {
                let wanted = secrets::repeated(&wanted);
                let detail =
                    format!("no source `{wanted}` is monitored here; list the sources to see which are");
                Refusal::new(Code::ApiUnknownSource, detail)
            }
            NotFound::Ambiguous { wanted, sources } => {
                let sources: Vec<String> = sources.iter().map(ToString::to_string).collect();
                let detail = format!(
                    "several sources have the name `{wanted}`; give one of {} as `source`",
                    sources.join(", ")
                );
                Refusal {
                    sources,
                    ..Refusal::new(Code::ApiAmbiguousSource, detail)
                }
            }
            NotFound::Store(error) => return error.into(),
        };
        Self::Refused(refusal)
    }
}

/// Entries, what stands around them, and the same in sentences.
pub(super) struct Listed<T> {
    pub(super) list: Envelope<T>,
    text: String,
}

/// Returns the answer of a tool; an expected outcome without an answer has no entries.
fn respond<T: Serialize>(
    tools: &Tools,
    kind: &'static str,
    found: Result<Listed<T>, NoAnswer>,
) -> Result<Answered, Failed> {
    let (list, text, problem) = match found {
        Ok(Listed { list, text }) => (list, text, None),
        Err(NoAnswer::Refused(problem)) => {
            let list = Envelope::of(kind, tools.reading.clock.now(), Vec::new());
            (list, text::refusal(&problem), Some(problem))
        }
        Err(NoAnswer::Failed(failed)) => return Err(failed),
    };
    let value = serde_json::to_value(Outcome { list, problem }).unwrap_or(Value::Null);
    Ok(Answered { value, text })
}

pub(super) async fn list_sources(tools: Tools, args: JsonObject) -> Result<Answered, Failed> {
    let found = match args::read(args) {
        Ok(args) => sources(&tools, &args).await,
        Err(refusal) => Err(refusal.into()),
    };
    respond(&tools, SourceItem::KIND, found)
}

/// Returns the selected part of the sources.
pub(super) async fn sources(tools: &Tools, args: &ListArgs) -> Result<Listed<SourceItem>, NoAnswer> {
    let (platform, source, limit) = (args.platform()?, args.source()?, args.limit()?);
    let mut sources = tools.reading.sources(None).await?;
    sources.rows.retain(|row| {
        platform.is_none_or(|platform| row.summary.key.platform() == platform)
            && args.live.is_none_or(|live| row.is_live() == live)
            && args.failing.is_none_or(|failing| row.is_failing() == failing)
            && source.as_ref().is_none_or(|source| source.selects(&row.summary))
    });
    let total = sources.rows.len();
    let part = sources.rows.iter().skip(args.offset()).take(limit);
    let items: Vec<SourceItem> = part.map(SourceItem::from).collect();
    let mut list = Envelope::of(SourceItem::KIND, tools.reading.clock.now(), items);
    list.total = Some(total);
    list.unusable = sources.unusable;
    let text = text::sources(&list, total);
    Ok(Listed { list, text })
}

pub(super) async fn get_source(tools: Tools, args: JsonObject) -> Result<Answered, Failed> {
    let found = async {
        let args: SourceArgs = args::read(args)?;
        source(&tools, args.source()?, &args).await
    };
    let found = found.await;
    respond(&tools, SourceDetail::KIND, found)
}

/// Returns one source in full.
pub(super) async fn source(
    tools: &Tools,
    wanted: &str,
    args: &SourceArgs,
) -> Result<Listed<SourceDetail>, NoAnswer> {
    let found = tools.reading.found(wanted, args.max_age()?).await?;
    let key = &found.document.key;
    let history = tools.reading.store.history(key, RECENT).await?;
    let listening = match key.platform() {
        PlatformName::Twitch => (tools.options.listening)(key.clone()).await,
        PlatformName::Kick | PlatformName::Discord => None,
    };
    let source = SourceInFull {
        as_of: tools.reading.clock.now(),
        row: found.row,
        document: found.document,
        listening,
        history: HistoryEntry::without_repeats(history),
    };
    let list = Envelope::of(SourceDetail::KIND, source.as_of, vec![source.detail()]);
    let text = text::source(&list);
    Ok(Listed { list, text })
}

pub(super) async fn is_live(tools: Tools, args: JsonObject) -> Result<Answered, Failed> {
    let found = async {
        let args: SourceArgs = args::read(args)?;
        let max_age = args.max_age()?;
        let found = tools.reading.found(args.source()?, max_age).await?;
        Ok(answered(&tools, live::judge(&found, max_age).0))
    };
    let found = found.await;
    respond(&tools, AnswerItem::KIND, found)
}

pub(super) async fn can(tools: Tools, args: JsonObject) -> Result<Answered, Failed> {
    let found = async {
        let args: CanArgs = args::read(args)?;
        let max_age = args.of.max_age()?;
        let found = tools.reading.found(args.of.source()?, max_age).await?;
        let question = question(&found, args.action())?;
        let limits = Limits {
            intervals: (tools.reading.configured)().intervals.within(max_age),
            now: tools.reading.clock.now(),
        };
        Ok(answered(&tools, can::judge(&found, &question, limits).0))
    };
    let found = found.await;
    respond(&tools, AnswerItem::KIND, found)
}

/// Parses the action; a missing or unknown one is refused with the list of actions of the source's platform.
fn question(found: &Found, action: Option<&str>) -> Result<can::Question, Refusal> {
    let platform = found.document.key.platform();
    let question = action.and_then(|action| can::question(platform, action).ok());
    question.ok_or_else(|| {
        let names: Vec<_> = actions(platform).iter().map(|action| action.action).collect();
        let what = match action {
            Some(action) => format!(
                "`{}` is no action on {platform}",
                shown(&secrets::repeated(action))
            ),
            None => "`action` is missing".to_owned(),
        };
        Refusal {
            // In full: a list that ends early would seem complete.
            detail: format!("{what}; use one of {}", names.join(", ")),
            ..Refusal::new(Code::ApiUnknownAction, "")
        }
    })
}

fn answered(tools: &Tools, answer: AnswerItem) -> Listed<AnswerItem> {
    let text = text::answer(&answer);
    let list = Envelope::of(AnswerItem::KIND, tools.reading.clock.now(), vec![answer]);
    Listed { list, text }
}

pub(super) async fn history(tools: Tools, args: JsonObject) -> Result<Answered, Failed> {
    let found = async {
        let args: HistoryArgs = args::read(args)?;
        let now = tools.reading.clock.now();
        let (since, limit) = (args.since(now)?, args.limit()?);
        let found = tools.reading.found(args.source()?, None).await?;
        let key = &found.document.key;
        let mut entries = tools.reading.history(key, since, 0, reading::READ).await?;
        let total = entries.len();
        entries.truncate(limit);
        let mut list = Envelope::of(HistoryItem::KIND, now, HistoryItem::of(&entries));
        list.total = Some(total);
        let text = text::history(&found.row.named(), &list, total);
        Ok(Listed { list, text })
    };
    let found = found.await;
    respond(&tools, HistoryItem::KIND, found)
}

pub(super) async fn attention(tools: Tools, args: JsonObject) -> Result<Answered, Failed> {
    let found = async {
        let NoArgs {} = args::read(args)?;
        let sources = tools.reading.sources(None).await?;
        let items = attention::of(&sources.rows, &sources.unusable, &[]);
        let total = items.len();
        let mut list = Envelope::of(Attention::KIND, tools.reading.clock.now(), items);
        list.total = Some(total);
        let text = text::attention(&list);
        Ok(Listed { list, text })
    };
    let found = found.await;
    respond(&tools, Attention::KIND, found)
}
