//! What is read of a store in all its partitions, within one transaction.

use futures_util::future::BoxFuture;

use super::client::Client;
use super::session::Session;
use super::{log, rows};
use crate::domain::{BatchId, WriterId};
use crate::store::{LedgerPosition, StoreError};

/// What reads a partition that the transaction is in.
pub(super) type Statement<Q, T> = for<'a> fn(&'a Client, u16, &'a Q) -> BoxFuture<'a, Result<T, StoreError>>;

/// What the statement gives in each partition, in their order.
pub(super) async fn in_each<Q, T>(
    session: &Session,
    statement: Statement<Q, T>,
    query: &Q,
) -> Result<Vec<T>, StoreError> {
    let mut parts = Vec::new();
    for partition in session.home.partitions.all() {
        session.enter(partition).await?;
        parts.push(statement(&session.client, partition, query).await?);
    }
    Ok(parts)
}

/// Where all partitions stand together. To be asked first: from then on each of them has its snapshot.
pub(super) async fn position(session: &Session, writers: &[WriterId]) -> Result<LedgerPosition, StoreError> {
    let mut parts = Vec::new();
    for partition in session.home.partitions.all() {
        session.enter(partition).await?;
        parts.push(rows::position(&session.client, writers).await?);
    }
    let mut position = LedgerPosition::join(parts).ok_or(StoreError::CatalogChanging)?;
    for (partition, writer, seq) in position.ahead() {
        session.enter(partition).await?;
        let behind = log::total_behind(&session.client, BatchId { writer, seq }).await?;
        position.deduct(writer, behind);
    }
    Ok(position)
}
