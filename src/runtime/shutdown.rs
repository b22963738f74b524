//! SIGTERM and SIGINT: the first asks all tasks of the process to finish, the second ends the process at once, or, for
//! a worker, the commands it runs.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that the first SIGTERM or SIGINT cancels.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        either(&mut terminate, &mut interrupt).await;
        tracing::info!("shutting down; a second signal ends the process at once");
        cancel.cancel();
        either(&mut terminate, &mut interrupt).await;
        std::process::exit(130);
    });
    Ok(token)
}

/// Two tokens: the first SIGTERM or SIGINT cancels the first one, which asks to finish; another one, or SIGQUIT, cancels
/// both, which asks to give up what is at hand.
pub fn stages() -> std::io::Result<(CancellationToken, CancellationToken)> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut quit = signal(SignalKind::quit())?;
    let (warm, cold) = (CancellationToken::new(), CancellationToken::new());
    let tokens = (warm.clone(), cold.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = either(&mut terminate, &mut interrupt) => {
                tracing::info!("finishing the tasks that run; a second signal puts them back");
                warm.cancel();
                tokio::select! { () = either(&mut terminate, &mut interrupt) => {} _ = quit.recv() => {} }
            }
            _ = quit.recv() => {}
        }
        tracing::warn!("stopping the tasks that run and putting them back");
        cold.cancel();
        warm.cancel();
    });
    Ok(tokens)
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! { _ = one.recv() => {}, _ = other.recv() => {} }
}
