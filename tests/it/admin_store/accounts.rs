//! Superusers, their sessions, and keys.

use event_tracker::store::admin::{AdminKey, Session, Superuser};

use super::*;

on_both_stores!(
    superusers_are_added_once_changed_and_deleted,
    a_session_ends_absolutely_and_when_idle,
    a_user_has_only_the_newest_sessions,
    sessions_end_with_what_ends_the_user,
    a_new_password_ends_all_sessions_but_the_one_that_set_it,
    a_key_works_until_it_expires_or_is_revoked,
    the_use_of_a_key_is_noted_at_most_once_a_minute,
);

fn user(name: &str) -> Superuser {
    let (password_hash, created_at) = ("$argon2id$x".into(), later(0));
    Superuser { name: name.into(), password_hash, disabled: false, created_at, last_login_at: None }
}

/// Lives for 1000 seconds from `seconds` after [`now`].
fn session(user: &str, number: u8, seconds: i64) -> Session {
    Session {
        id_hash: [number; 32],
        user: user.into(),
        created_at: later(seconds),
        last_seen_at: later(seconds),
        expires_at: later(seconds + 1_000),
        agent: "Firefox “116”".into(),
    }
}

async fn lives(store: &Arc<dyn Store>, number: u8, seconds: i64) -> bool {
    store.session([number; 32], later(seconds), later(seconds - 500)).await.unwrap().is_some()
}

async fn superusers_are_added_once_changed_and_deleted(bench: Bench) {
    let store = bench.store().await;
    assert!(store.add_superuser(user("ada")).await.unwrap());
    assert!(store.add_superuser(user("Ada")).await.unwrap());
    assert!(!store.add_superuser(Superuser { password_hash: "other".into(), ..user("ada") }).await.unwrap());
    assert!(store.add_superuser(user("")).await.is_err());
    assert!(store.add_superuser(user(&"ä".repeat(33))).await.is_err());
    assert!(store.update_superuser("ada", Some("new".into()), None, None).await.unwrap());
    assert!(store.update_superuser("ada", None, Some(true), None).await.unwrap());
    assert!(!store.update_superuser("bob", None, Some(true), None).await.unwrap());
    let found = store.superusers().await.unwrap();
    let told: Vec<_> = found.iter().map(|u| (u.name.as_str(), u.password_hash.as_str(), u.disabled)).collect();
    assert_eq!(told, [("Ada", "$argon2id$x", false), ("ada", "new", true)]);
    assert_eq!(found[0].created_at.timestamp_micros(), now().timestamp_micros());
    assert!(store.delete_superuser("ada").await.unwrap());
    assert!(!store.delete_superuser("ada").await.unwrap());
    assert_eq!(store.superusers().await.unwrap().len(), 1);
}

async fn a_session_ends_absolutely_and_when_idle(bench: Bench) {
    let store = bench.store().await;
    store.add_superuser(user("ada")).await.unwrap();
    store.add_session(session("ada", 1, 0), 5).await.unwrap();
    let found = bench.store().await.session([1; 32], later(1), later(-1)).await.unwrap().unwrap();
    assert_eq!((found.user.as_str(), found.agent.as_str()), ("ada", "Firefox “116”"));
    assert_eq!(found.expires_at.timestamp_micros(), later(1_000).timestamp_micros());
    assert_eq!(store.superusers().await.unwrap()[0].last_login_at, Some(found.created_at));
    assert!(!lives(&store, 2, 1).await);
    assert!(lives(&store, 1, 500).await);
    assert!(!lives(&store, 1, 501).await);
    store.touch_session([1; 32], later(490)).await.unwrap();
    store.touch_session([1; 32], later(400)).await.unwrap();
    assert!(lives(&store, 1, 990).await);
    store.touch_session([1; 32], later(999)).await.unwrap();
    assert!(lives(&store, 1, 999).await);
    assert!(!lives(&store, 1, 1_000).await);
    store.end_session([1; 32]).await.unwrap();
    assert!(!lives(&store, 1, 999).await);
}

async fn a_user_has_only_the_newest_sessions(bench: Bench) {
    let store = bench.store().await;
    for name in ["ada", "bob"] {
        store.add_superuser(user(name)).await.unwrap();
    }
    store.add_session(session("bob", 9, 0), 2).await.unwrap();
    for (number, seconds) in [(1, 0), (2, 1), (3, 2)] {
        store.add_session(session("ada", number, seconds), 2).await.unwrap();
    }
    assert!(!lives(&store, 1, 3).await);
    for number in [2, 3, 9] {
        assert!(lives(&store, number, 3).await, "{number}");
    }
    // One made at the same moment is kept before the others.
    store.add_session(session("ada", 4, 2), 1).await.unwrap();
    assert!(lives(&store, 4, 3).await && !lives(&store, 3, 3).await);
    assert_eq!(store.end_sessions("ada").await.unwrap(), 1);
    assert_eq!(store.end_sessions("ada").await.unwrap(), 0);
    // Expired ones go with the next login, of whomever.
    store.add_session(session("ada", 5, 2_000), 2).await.unwrap();
    assert_eq!(store.end_sessions("bob").await.unwrap(), 0);
}

async fn sessions_end_with_what_ends_the_user(bench: Bench) {
    let store = bench.store().await;
    store.add_superuser(user("ada")).await.unwrap();
    store.add_session(session("ada", 1, 0), 5).await.unwrap();
    store.update_superuser("ada", None, Some(true), None).await.unwrap();
    assert!(!lives(&store, 1, 1).await);
    store.add_session(session("ada", 2, 0), 5).await.unwrap();
    store.update_superuser("ada", None, Some(false), None).await.unwrap();
    assert!(!lives(&store, 1, 1).await && !lives(&store, 2, 1).await);
    store.add_session(session("ada", 3, 0), 5).await.unwrap();
    store.delete_superuser("ada").await.unwrap();
    store.add_superuser(user("ada")).await.unwrap();
    assert!(!lives(&store, 3, 1).await);
    store.add_session(session("nobody", 4, 0), 5).await.unwrap();
    store.add_superuser(user("nobody")).await.unwrap();
    assert!(!lives(&store, 4, 1).await);
}

async fn a_new_password_ends_all_sessions_but_the_one_that_set_it(bench: Bench) {
    let store = bench.store().await;
    store.add_superuser(user("ada")).await.unwrap();
    for number in 1..=3 {
        store.add_session(session("ada", number, 0), 5).await.unwrap();
    }
    store.update_superuser("ada", Some("new".into()), None, Some([2; 32])).await.unwrap();
    let mut living = Vec::new();
    for number in 1..=3 {
        living.push(lives(&store, number, 1).await);
    }
    assert_eq!(living, [false, true, false]);
}

fn key(label: &str, number: u8) -> AdminKey {
    AdminKey {
        id: 0,
        label: label.into(),
        secret_hash: [number; 32],
        hint: "evt_ab".into(),
        created_by: "ada".into(),
        created_at: later(0),
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
    }
}

async fn a_key_works_until_it_expires_or_is_revoked(bench: Bench) {
    let store = bench.store().await;
    let ci = store.add_admin_key(key("ci", 1)).await.unwrap();
    let short = store.add_admin_key(AdminKey { expires_at: Some(later(100)), ..key("short", 2) }).await.unwrap();
    assert!(ci < short);
    assert!(store.add_admin_key(key("copy", 1)).await.is_err());
    assert_eq!(store.use_admin_key([1; 32], later(1)).await.unwrap().unwrap().label, "ci");
    assert_eq!(store.use_admin_key([3; 32], later(1)).await.unwrap(), None);
    assert!(store.use_admin_key([2; 32], later(99)).await.unwrap().is_some());
    assert_eq!(store.use_admin_key([2; 32], later(100)).await.unwrap(), None);
    assert!(store.revoke_admin_key(ci, later(5)).await.unwrap());
    assert!(!store.revoke_admin_key(ci, later(6)).await.unwrap());
    assert!(!store.revoke_admin_key(99, later(6)).await.unwrap());
    assert_eq!(store.use_admin_key([1; 32], later(7)).await.unwrap(), None);
    let keys = store.admin_keys().await.unwrap();
    let told: Vec<_> = keys.iter().map(|key| (key.id, key.label.as_str(), key.revoked_at.is_some())).collect();
    assert_eq!(told, [(ci, "ci", true), (short, "short", false)]);
    assert_eq!((keys[1].hint.as_str(), keys[1].secret_hash), ("evt_ab", [2; 32]));
}

async fn the_use_of_a_key_is_noted_at_most_once_a_minute(bench: Bench) {
    let store = bench.store().await;
    store.add_admin_key(key("ci", 1)).await.unwrap();
    for (used_at, noted) in [(10, 10), (69, 10), (70, 70), (71, 70)] {
        let used = store.use_admin_key([1; 32], later(used_at)).await.unwrap().unwrap().last_used_at.unwrap();
        let listed = store.admin_keys().await.unwrap()[0].last_used_at.unwrap();
        assert_eq!((used, listed.timestamp_micros()), (listed, later(noted).timestamp_micros()));
    }
}
