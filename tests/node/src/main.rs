//! The embedded node: the engine of Meilisearch behind its HTTP interface.
//!
//! A stand-in for development and tests when no Meilisearch server is available. A request passes [`http`] (route,
//! permission, shape). Then it either reads through [`engine`] on its own thread, or becomes a task in the [`queue`]. The
//! [`worker`] executes tasks through [`engine`], in order.
//!
//! Invariants: only `engine` uses the engine's types for search and indexing; only `worker` writes to an index; a task is
//! durable before its client gets the answer; every error has the protocol's shape, made in `errors`.

mod auth;
mod engine;
mod errors;
mod http;
mod node;
mod options;
mod queue;
mod store;
mod validate;
mod worker;

use std::process::ExitCode;
use std::sync::Arc;

use axum::ServiceExt;
use axum::extract::Request;
use axum::serve::ListenerExt as _;
use clap::Parser as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use node::Node;
use options::Options;

/// Threads that handle requests; searches run on other threads.
const HTTP_THREADS: usize = 2;
/// The most threads for searches, reads and staging.
const BLOCKING_THREADS: usize = 32;

fn main() -> ExitCode {
    let options = Options::parse();
    let filter = tracing_subscriber::EnvFilter::new(&options.log_level);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    if let Some(complaint) = options.complaint() {
        return fail(complaint);
    }
    let address = options.http_addr;
    let node = match Node::open(options) {
        Ok(node) => Arc::new(node),
        Err(error) => return fail(format!("cannot open the data folder: {}", error.message)),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    let worker = {
        let node = Arc::clone(&node);
        std::thread::Builder::new()
            .name("worker".to_owned())
            .spawn(move || worker::run(&node))
    };
    let worker = match worker {
        Ok(worker) => worker,
        Err(error) => return fail(error),
    };
    let served = runtime.block_on(serve(Arc::clone(&node), address));
    node.queue.close();
    let worked = worker.join();
    match (served, worked) {
        (Ok(()), Ok(Ok(()))) => ExitCode::SUCCESS,
        (Err(error), _) => fail(format!("cannot serve on {address}: {error}")),
        (_, Ok(Err(error))) => fail(format!("the task queue stopped: {}", error.message)),
        (_, Err(_)) => fail("the task queue panicked"),
    }
}

fn fail(reason: impl std::fmt::Display) -> ExitCode {
    tracing::error!("{reason}");
    ExitCode::FAILURE
}

async fn serve(node: Arc<Node>, address: std::net::SocketAddr) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    tracing::info!(%address, "listening");
    let service = http::service(node);
    // Without this, a small answer would wait until the next one fills a packet.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "could not send small packets at once");
        }
    });
    axum::serve(listener, ServiceExt::<Request>::into_make_service(service))
        .with_graceful_shutdown(asked_to_stop())
        .await
}

async fn asked_to_stop() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
