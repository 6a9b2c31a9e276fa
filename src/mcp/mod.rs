//! The interface for agents: read-only tools and resources by the Model Context Protocol, over the view model that commands and
//! the API use.
//!
//! The tools are served on standard input and output by `bitbrat mcp`, and over HTTP by the web server (`web/mcp.rs`). A question
//! that cannot be answered (no such source, not enough evidence, a wrong argument) is a normal result: clients count errors, and
//! the platform's tool gateway stops calling a server after two of them. Only what a person has to repair is an error.

mod answers;
mod args;
mod calls;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod messages;
pub mod registration;
mod resources;
#[cfg(test)]
pub(crate) mod tests;
mod text;
mod tools;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ErrorData, Implementation, ListResourceTemplatesResult,
    ListResourcesResult, ListToolsResult, PaginatedRequestParams, ReadResourceRequestParams,
    ReadResourceResponse, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{RequestContext, RoleServer, ServerInitializeError};
use rmcp::{ServerHandler, ServiceExt as _};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::core::source::SourceKey;
use crate::failure::{ExitCode, Failure};
use crate::view::listening::Listening;
use crate::view::reading::Reading;

/// Calls that are answered at a time; others wait. Each may read the whole store.
const AT_A_TIME: usize = 2;

/// Returns how changes of a source's stream reach `watch`, where that is known without asking the platform.
pub type ListeningOf = Arc<dyn Fn(SourceKey) -> BoxFuture<'static, Option<Listening>> + Send + Sync>;

/// How the tools are offered.
#[derive(Clone)]
pub struct Options {
    /// What the names of the tools begin with; may be empty.
    pub prefix: String,
    pub listening: ListeningOf,
}

/// The tools and resources. Cheap to clone.
#[derive(Clone)]
pub struct Tools {
    reading: Reading,
    options: Options,
    listed: Arc<Vec<Tool>>,
    free: Arc<Semaphore>,
    /// Cancelled when the client is gone, as far as its transport reports that apart from its calls.
    gone: CancellationToken,
}

impl Tools {
    /// Returns tools that answer from `reading`.
    pub fn new(reading: Reading, options: Options) -> Self {
        Self {
            listed: Arc::new(tools::listed(&options.prefix)),
            free: Arc::new(Semaphore::new(AT_A_TIME)),
            gone: CancellationToken::new(),
            reading,
            options,
        }
    }

    /// Returns the same tools for one client: its calls end when `gone` is cancelled.
    pub fn for_client(&self, gone: CancellationToken) -> Self {
        Self { gone, ..self.clone() }
    }

    /// Returns the tools as clients see them.
    pub fn listed(&self) -> &[Tool] {
        &self.listed
    }
}

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources()
            .build();
        let program = Implementation::new("bitbrat", env!("CARGO_PKG_VERSION")).with_title("bitbrat");
        ServerConfig::new(capabilities)
            .with_server_info(program)
            .with_instructions(tools::INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.listed.to_vec()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.listed.iter().find(|tool| tool.name == name).cloned()
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        cx: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let name = request.name.strip_prefix(self.options.prefix.as_str());
        let Some(tool) = name.and_then(tools::find) else {
            return Err(ErrorData::invalid_params(
                format!("there is no tool `{}`", answers::shown(&request.name)),
                None,
            ));
        };
        let (tools, args) = (self.clone(), request.arguments.unwrap_or_default());
        let answered = calls::limited(self, &cx.ct, async move { (tool.answer)(tools, args).await }).await?;
        Ok(calls::result(answered).into())
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        cx: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let tools = self.clone();
        let listed = calls::limited(self, &cx.ct, async move { resources::list(&tools).await }).await?;
        listed.map_err(|failed| failed.as_error())
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(resources::templates())
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        cx: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let (tools, uri) = (self.clone(), request.uri);
        let read = calls::limited(self, &cx.ct, async move { resources::read(&tools, &uri).await }).await?;
        read.map_err(|failed| failed.as_error())
    }
}

/// Serves on standard input and output until the client closes them.
pub async fn serve_stdio(tools: Tools) -> Result<(), Failure> {
    let failed = |cause: String| {
        let mut failure = Failure::new(ExitCode::Failed, "the connection to the MCP client failed");
        failure.causes.push(cause);
        failure.hint("start `bitbrat mcp` from an MCP client: it reads JSON-RPC messages, one a line")
    };
    let transport = messages::Lines::new(tokio::io::stdin(), tokio::io::stdout());
    match tools.serve(transport).await {
        Ok(running) => {
            let ended = running.waiting().await;
            ended.map(|_| ()).map_err(|error| failed(error.to_string()))
        }
        // A client that only checks whether the program starts.
        Err(ServerInitializeError::ConnectionClosed(_)) => Ok(()),
        Err(error) => Err(failed(error.to_string())),
    }
}
