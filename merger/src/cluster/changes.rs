//! Waits for changes of the state that the merger itself holds, in place of looking at it again and again.

use futures_util::future::select_all;
use tokio::sync::Notify;

/// Tells waiters that some state has changed. It stands beside the state, and [`tell`](Self::tell) follows each change.
#[derive(Debug, Default)]
pub(crate) struct Changes(Notify);

impl Changes {
    /// Wakes everything that waits for a change.
    pub(crate) fn tell(&self) {
        self.0.notify_waiters();
    }
}

/// Waits until `look` finds something: it looks at once, and again after each change of one of these states, of which there must be
/// at least one.
pub(crate) async fn until<const N: usize, T>(
    states: [&Changes; N],
    mut look: impl FnMut() -> Option<T>,
) -> T {
    loop {
        // Taken before the look, so that no change in between is missed.
        let changes = states.map(|state| Box::pin(state.0.notified()));
        if let Some(found) = look() {
            return found;
        }
        select_all(changes).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_change_during_the_look_is_not_missed() {
        let (changes, mut looks) = (Changes::default(), 0);
        let found = until([&changes], || {
            looks += 1;
            // The state changes when this look has been taken.
            changes.tell();
            (looks == 3).then_some(looks)
        });
        let found = tokio::time::timeout(Duration::from_secs(60), found).await;
        assert_eq!(found, Ok(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_of_any_state_wakes_each_that_waits_and_no_time_does() {
        let state = Arc::new((Changes::default(), Changes::default(), AtomicU32::new(0)));
        let waiters: Vec<_> = [1, 2]
            .map(|wanted| {
                let state = Arc::clone(&state);
                tokio::spawn(async move {
                    let (one, other, number) = &*state;
                    let mut looks = 0;
                    until([one, other], || {
                        looks += 1;
                        (number.load(Ordering::SeqCst) >= wanted).then_some(looks)
                    })
                    .await
                })
            })
            .into();
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        let (one, other, number) = &*state;
        for changes in [one, other] {
            number.fetch_add(1, Ordering::SeqCst);
            changes.tell();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let mut looks = Vec::new();
        for waiter in waiters {
            looks.push(waiter.await.unwrap());
        }
        assert_eq!(looks, [2, 3]);
    }
}
