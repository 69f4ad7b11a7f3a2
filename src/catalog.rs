//! The catalog of events as this node knows it: what it refuses to count, under which event it shows
//! what was counted under another name, and what it hides.
//!
//! Counting may use a catalog that is one flush interval old, since the store maps aliases itself when
//! a batch is committed. Reading may not: rows and catalog are of one moment, or the read is repeated.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use tokio::sync::Mutex;

use crate::batch::Batches;
use crate::blocking::run_blocking;
use crate::domain::{EventName, EventTotal, WriterId};
use crate::names::Standing;
use crate::rows::Named;
use crate::store::admin::{Aliases, Catalog, CatalogEntry, Change, Changed, Landing};
use crate::store::{LedgerPosition, Store, StoreError};

/// One version of the catalog, prepared for reads.
#[derive(Debug, Default)]
pub struct CatalogView {
    catalog: Catalog,
    aliases: Aliases,
    /// The aliases of each event that has some.
    names: HashMap<EventName, Vec<EventName>>,
    hides_any: bool,
    /// The version of the last purge.
    last_purge: u64,
}

impl From<Catalog> for CatalogView {
    fn from(catalog: Catalog) -> Self {
        let aliases = Aliases::from(&catalog);
        let mut names: HashMap<EventName, Vec<EventName>> = HashMap::new();
        for (alias, event) in aliases.iter() {
            names.entry(event.clone()).or_default().push(alias.clone());
        }
        let hides_any = catalog.entries.values().any(|entry| entry.deleted_at.is_some());
        let last_purge = catalog.purges.values().copied().max().unwrap_or(0);
        Self { catalog, aliases, names, hides_any, last_purge }
    }
}

impl CatalogView {
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    #[must_use]
    pub fn aliases(&self) -> &Aliases {
        &self.aliases
    }

    #[must_use]
    pub fn entry(&self, event: &EventName) -> Option<&CatalogEntry> {
        self.catalog.entries.get(event)
    }

    /// The event that `name` stands for: mostly itself.
    #[must_use]
    pub fn event<'a>(&'a self, name: &'a EventName) -> &'a EventName {
        self.aliases.event(name)
    }

    /// All names whose counts belong to `event`: its own and its aliases.
    pub fn names_of<'a>(&'a self, event: &'a EventName) -> impl Iterator<Item = &'a EventName> {
        std::iter::once(event).chain(self.names.get(event).into_iter().flatten())
    }

    /// A sorted list of what was counted, under the events that it belongs to.
    #[must_use]
    pub fn belonging<T: Named>(&self, rows: Vec<T>) -> Vec<T> {
        self.aliases.apply(rows)
    }

    /// The names that were purged after `version`.
    pub fn purged_since(&self, version: u64) -> impl Iterator<Item = &EventName> {
        let some = (self.last_purge > version).then_some(&self.catalog.purges);
        some.into_iter().flatten().filter(move |(_, purged)| **purged > version).map(|(event, _)| event)
    }

    /// Which rows of a batch count that was opened with `version`.
    #[must_use]
    pub fn landing(&self, version: u64) -> Landing {
        Landing { purged: self.purged_since(version).cloned().collect() }
    }

    #[must_use]
    pub fn has_aliases(&self) -> bool {
        !self.names.is_empty()
    }

    /// Whether the event is deleted.
    #[must_use]
    pub fn hides(&self, event: &EventName) -> bool {
        self.hides_any && self.entry(event).is_some_and(|entry| entry.deleted_at.is_some())
    }

    fn standing(&self, event: &EventName) -> Standing<'_> {
        let of_entry = |entry: &CatalogEntry| match entry {
            CatalogEntry { deleted_at: Some(_), .. } => Standing::Deleted,
            CatalogEntry { inactive: true, .. } => Standing::Inactive,
            _ => Standing::Counted,
        };
        let Some(entry) = self.entry(event) else { return Standing::Counted };
        let Some(target) = &entry.alias_of else { return of_entry(entry) };
        match self.entry(target).map_or(Standing::Counted, of_entry) {
            Standing::Counted => Standing::AliasOf(target),
            refused => refused,
        }
    }
}

/// The newest version that this node has seen. At first, and while the store is down, that is none:
/// then everything is counted.
pub struct LiveCatalog {
    batches: Arc<Batches>,
    store: Arc<dyn Store>,
    view: ArcSwap<CatalogView>,
    /// The newest version that this node has heard of: rows of older ones are not served any more.
    newest: AtomicU64,
    loading: Mutex<()>,
}

impl LiveCatalog {
    #[must_use]
    pub fn new(batches: Arc<Batches>, store: Arc<dyn Store>) -> Self {
        let (view, newest) = (ArcSwap::default(), AtomicU64::new(0));
        Self { batches, store, view, newest, loading: Mutex::new(()) }
    }

    #[must_use]
    pub fn view(&self) -> Arc<CatalogView> {
        self.view.load_full()
    }

    #[must_use]
    pub fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    /// The catalog of the moment that rows come from; `None` when a newer one has replaced it: then
    /// the rows must be read again.
    ///
    /// # Errors
    /// The store's.
    pub async fn at(&self, version: u64) -> Result<Option<Arc<CatalogView>>, StoreError> {
        let mut view = self.view();
        if view.catalog.version != version {
            view = self.refresh().await?;
        }
        Ok((view.catalog.version == version).then_some(view))
    }

    /// Reads the catalog, and the totals that new aliases and corrections may have changed.
    ///
    /// # Errors
    /// The store's.
    pub async fn refresh(&self) -> Result<Arc<CatalogView>, StoreError> {
        // One at a time, so that an older catalog never replaces a newer one.
        let _loading = self.loading.lock().await;
        let catalog = self.read().await?;
        if catalog.version != self.view.load().catalog.version {
            self.load(catalog, Vec::new()).await?;
        }
        Ok(self.view())
    }

    /// The first contact with the store: learns every name that it knows, and the catalog. Gives the
    /// ledger's position for `writers`.
    ///
    /// # Errors
    /// The store's.
    pub async fn meet(&self, writers: Vec<WriterId>) -> Result<LedgerPosition, StoreError> {
        let _loading = self.loading.lock().await;
        let catalog = self.read().await?;
        self.load(catalog, writers).await
    }

    async fn read(&self) -> Result<Catalog, StoreError> {
        let newest = self.newest();
        let catalog = self.store.catalog().await?;
        if catalog.version < newest {
            // The store has gone back behind what this node had heard of before it asked. Unless it has heard
            // more meanwhile, that is the newest version now; else nothing would ever be kept again.
            let _ = self.newest.compare_exchange(newest, catalog.version, Ordering::AcqRel, Ordering::Relaxed);
        }
        Ok(catalog)
    }

    async fn load(&self, catalog: Catalog, writers: Vec<WriterId>) -> Result<LedgerPosition, StoreError> {
        let names = self.batches.names();
        let view = Arc::new(CatalogView::from(catalog));
        let mut of_events: HashMap<EventName, u64> = HashMap::new();
        let mut learn = |total: EventTotal| {
            names.learn(&total.event, total.count);
            if view.has_aliases() {
                // The counts of its aliases are charged to an event as well.
                let of_event = of_events.entry(view.event(&total.event).clone()).or_default();
                *of_event = of_event.saturating_add(total.count);
            }
        };
        let position = self.store.each_total(writers, &mut learn).await?;
        for (event, count) in &of_events {
            names.learn(event, *count);
        }
        // Before batches are opened with this version: what they count, they count by it.
        let known = self.batches.least_catalog();
        let purges = view.catalog.purges.iter().map(|(event, version)| (event, *version));
        names.set_standings(
            view.catalog.entries.keys().map(|event| (event, view.standing(event))),
            purges.filter(|(_, version)| *version > known),
        );
        self.newest.fetch_max(view.catalog.version, Ordering::AcqRel);
        let (batches, version, last_purge) = (Arc::clone(&self.batches), view.catalog.version, view.last_purge);
        self.view.store(view);
        let noted = run_blocking(move || batches.note_catalog(version, last_purge)).await;
        if let Err(error) = noted {
            tracing::warn!(%error, "The journal can't take note of the catalog yet");
        }
        Ok(position)
    }

    /// Asks the store whether somebody has changed the catalog, and then reads it.
    ///
    /// # Errors
    /// The store's.
    pub async fn keep_current(&self) -> Result<(), StoreError> {
        self.keep_current_at(&self.store.position(Vec::new()).await?).await
    }

    /// The same with a position that was just read.
    ///
    /// # Errors
    /// The store's.
    pub async fn keep_current_at(&self, position: &LedgerPosition) -> Result<(), StoreError> {
        if position.catalog != self.view.load().catalog.version {
            self.refresh().await?;
        }
        Ok(())
    }

    /// Makes a change, and returns when this node counts and reads accordingly. Changes go through
    /// here and not straight to the store, so that no answer comes from before the change.
    ///
    /// # Errors
    /// The store's: whether the change was made is unknown then.
    pub async fn change(&self, change: Change, who: &str, at: DateTime<Utc>) -> Result<Changed, StoreError> {
        let changed = self.store.change(change, who, at).await;
        if let Ok(Changed::Done { change }) = &changed {
            self.newest.fetch_max(change.unsigned_abs(), Ordering::AcqRel);
        }
        if !matches!(changed, Ok(Changed::Refused { .. })) && self.refresh().await.is_err() {
            tracing::warn!("A change was made, but the catalog can't be read; that is tried again");
        }
        changed
    }
}
