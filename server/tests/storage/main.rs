//! Storage against a real database: SQLite in a temporary file, or PostgreSQL with `MAYFLY_TEST_DATABASE=postgres`.

mod audit;
mod database;
mod endings;
mod migrations;
mod people;
mod revocations;
mod rotations;
mod schema;
mod secrets;
mod sessions;
mod statements;
mod together;

use std::rc::Rc;

use server::storage::{Store, Tx};
use tokio::task::{JoinSet, LocalSet};

/// Does the same so many times at once, each in a transaction of its own that commits; how often the answer was yes.
async fn at_once(store: &Store, times: usize, act: impl AsyncFn(&mut Tx, usize) -> bool + 'static) -> usize {
    let (act, local, mut running) = (Rc::new(act), LocalSet::new(), JoinSet::new());
    for index in 0..times {
        let (act, store) = (act.clone(), store.clone());
        running.spawn_local_on(
            async move {
                let mut tx = store.write().await.expect("a transaction");
                let yes = act(&mut tx, index).await;
                tx.commit().await.expect("commits");
                yes
            },
            &local,
        );
    }
    local
        .run_until(running.join_all())
        .await
        .into_iter()
        .filter(|yes| *yes)
        .count()
}
