//! The fold on Citus: several statements, each of which goes whole to the machine that has the partition.

use tokio_postgres::types::Type;

use super::{expect_unchanged, overtaken};
use crate::store::aside::Failure;
use crate::store::columns::unsigned;
use crate::store::postgres::client::{Client, Param};
use crate::store::postgres::rows::column;
use crate::store::{Folded, StoreError};

/// What the session has set is set only here, and not there where the rows are.
const MEMORY: &str = "select set_config('work_mem', '64MB', true), set_config('enable_hashjoin', 'off', true),
    set_config('enable_mergejoin', 'off', true), set_config('jit', 'off', true) from fold_lock";

/// The entries of the partition's log that a look has taken, of each writer.
const TAKEN: &str = "(
    select deltas.writer, deltas.seq, counted.event, counted.count, purge_marks.event is not null as is_overtaken
    from unnest($1, $2, $3) as due (writer, after, seq)
    join deltas on deltas.writer = due.writer and deltas.seq > due.after and deltas.seq <= due.seq
    cross join lateral unnest(deltas.events, deltas.hours, deltas.counts) as counted (event, hour, count)
    left join purge_marks on purge_marks.event = counted.event and purge_marks.version > deltas.catalog
) as entries";

/// Folds one part, of at most some `counters_max`, as [`super::some`] does.
pub(super) async fn some(client: &Client, counters_max: i64, has_purges: bool) -> Result<Folded, Failure> {
    client.query_typed(MEMORY, &[]).await.map_err(Failure::Other)?;
    let params: [Param<'_>; 1] = [(&counters_max, Type::INT8)];
    let fold = client.driver().query_typed_one(include_str!("../fold_apart.sql"), &params);
    let row = client.answered(fold).await.map_err(Failure::Other)??;
    expect_unchanged(column(&row, 2).map_err(Failure::Other)?)?;
    let number = |index| column::<i64>(&row, index).and_then(unsigned).map_err(Failure::Other);
    let writers: Vec<&[u8]> = column(&row, 6).map_err(Failure::Other)?;
    let (after, through): (Vec<i64>, Vec<i64>) =
        (column(&row, 7).map_err(Failure::Other)?, column(&row, 8).map_err(Failure::Other)?);
    let taken: [Param<'_>; 3] =
        [(&writers, Type::BYTEA_ARRAY), (&after, Type::INT8_ARRAY), (&through, Type::INT8_ARRAY)];
    for (missing, sql) in [
        (number(3)?, include_str!("../fold_apart_hourly.sql")),
        (number(4)?, include_str!("../fold_apart_totals.sql")),
        (number(5)?, include_str!("../fold_apart_hours.sql")),
    ] {
        if missing > 0 {
            let insert = client.driver().execute_typed(sql, &taken);
            let inserted = client.answered(insert).await.map_err(Failure::Other)??;
            expect_unchanged(inserted == missing)?;
        }
    }
    if has_purges {
        let book = client.execute_typed(&overtaken(TAKEN), &taken).await;
        book.map_err(|error: StoreError| Failure::Other(error))?;
    }
    Ok(Folded { batches: number(0)?, counters: number(1)? })
}
