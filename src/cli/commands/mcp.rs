//! `mcp`: serves the tools for agents on standard input and output.

use std::sync::Arc;

use clap::Args;

use super::events::demo_daemon;
use crate::app::StoreAccess;
use crate::cli::context::{Context, Setup};
use crate::failure::{ExitCode, Failure};
use crate::mcp::{Tools, serve_stdio};
use crate::view::reading::Reading;

/// Offer the status of sources to AI agents (MCP)
///
/// An MCP client starts this command and exchanges messages with it on standard input and output. Its tools are read-only and answer from what
/// is stored; a running `bitbrat watch` keeps that up to date, and serves the same tools over HTTP at `/mcp`. docs/agents.md has
/// the configuration of clients. With --demo the simulated platforms are monitored while it runs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat mcp
  bitbrat --demo mcp
  npx @modelcontextprotocol/inspector --cli bitbrat mcp --method tools/list")]
pub struct McpArgs {}

pub async fn run(setup: &Setup, cx: Context) -> Result<ExitCode, Failure> {
    let (app, logs) = (Arc::new(cx.app), cx.logs);
    let access = if app.is_store_temporary() {
        StoreAccess::Write
    } else {
        StoreAccess::Read
    };
    let configuration = Arc::clone(&app);
    let reading = Reading {
        store: app.store(access).await?,
        configured: Arc::new(move || configuration.configured()),
        clock: Arc::clone(&app.clock),
    };
    let tools = Tools::new(reading, app.agent_options());
    // The demo's world is in this process, and so is what monitors it.
    let world = async {
        match app.is_store_temporary() {
            true => demo_daemon(setup, &app, &logs).await.map(|_| ()),
            false => std::future::pending().await,
        }
    };
    tokio::select! {
        served = serve_stdio(tools) => served?,
        ended = world => ended?,
    }
    Ok(ExitCode::Healthy)
}
