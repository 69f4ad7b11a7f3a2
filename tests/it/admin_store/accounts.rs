//! Superusers, their sessions, and keys.

use event_tracker::store::admin::{AccountChange, AdminKey, Session, Superuser};

use super::*;

on_both_stores!(
    superusers_are_added_once_changed_and_deleted,
    a_session_ends_absolutely_and_when_idle,
    a_user_has_only_the_newest_sessions,
    sessions_end_with_what_ends_the_user,
    a_new_password_ends_all_sessions_but_the_one_that_set_it,
    a_password_that_was_changed_while_it_was_checked_begins_no_session,
    the_log_tells_who_changed_which_user_and_key,
    a_key_works_until_it_expires_or_is_revoked,
    the_use_of_a_key_is_noted_at_most_once_a_minute,
);

const HASH: &str = "$argon2id$x";

fn user(name: &str) -> Superuser {
    let (password_hash, created_at) = (HASH.into(), later(0));
    Superuser { name: name.into(), password_hash, disabled: false, created_at, last_login_at: None }
}

async fn made(store: &Arc<dyn Store>, change: AccountChange) -> bool {
    store.change_account(change, "eve", later(0)).await.unwrap()
}

fn set_password(user: &str, password_hash: &str, keep: Option<[u8; 32]>) -> AccountChange {
    AccountChange::SetPassword { user: user.into(), password_hash: password_hash.into(), keep }
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
    assert!(made(&store, AccountChange::AddUser(user("ada"))).await);
    assert!(made(&store, AccountChange::AddUser(user("Ada"))).await);
    assert!(!made(&store, AccountChange::AddUser(Superuser { password_hash: "other".into(), ..user("ada") })).await);
    assert!(store.change_account(AccountChange::AddUser(user("")), "eve", now()).await.is_err());
    assert!(store.change_account(AccountChange::AddUser(user(&"ä".repeat(33))), "eve", now()).await.is_err());
    assert!(made(&store, set_password("ada", "new", None)).await);
    assert!(made(&store, AccountChange::Disable { user: "ada".into() }).await);
    assert!(!made(&store, AccountChange::Disable { user: "bob".into() }).await);
    let found = store.superusers().await.unwrap();
    let told: Vec<_> = found.iter().map(|u| (u.name.as_str(), u.password_hash.as_str(), u.disabled)).collect();
    assert_eq!(told, [("Ada", "$argon2id$x", false), ("ada", "new", true)]);
    assert_eq!(found[0].created_at.timestamp_micros(), now().timestamp_micros());
    assert!(made(&store, AccountChange::DeleteUser { user: "ada".into() }).await);
    assert!(!made(&store, AccountChange::DeleteUser { user: "ada".into() }).await);
    assert_eq!(store.superusers().await.unwrap().len(), 1);
}

async fn a_session_ends_absolutely_and_when_idle(bench: Bench) {
    let store = bench.store().await;
    made(&store, AccountChange::AddUser(user("ada"))).await;
    store.add_session(session("ada", 1, 0), HASH, 5).await.unwrap();
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
        made(&store, AccountChange::AddUser(user(name))).await;
    }
    store.add_session(session("bob", 9, 0), HASH, 2).await.unwrap();
    for (number, seconds) in [(1, 0), (2, 1), (3, 2)] {
        store.add_session(session("ada", number, seconds), HASH, 2).await.unwrap();
    }
    assert!(!lives(&store, 1, 3).await);
    for number in [2, 3, 9] {
        assert!(lives(&store, number, 3).await, "{number}");
    }
    // One made at the same moment is kept before the others.
    store.add_session(session("ada", 4, 2), HASH, 1).await.unwrap();
    assert!(lives(&store, 4, 3).await && !lives(&store, 3, 3).await);
    assert!(made(&store, AccountChange::SignOut { user: "ada".into() }).await);
    assert!(!lives(&store, 4, 3).await && lives(&store, 9, 3).await);
    assert!(!made(&store, AccountChange::SignOut { user: "nobody".into() }).await);
    // Expired ones go with the next login, of whomever.
    store.add_session(session("ada", 5, 2_000), HASH, 2).await.unwrap();
    assert!(!lives(&store, 9, 3).await);
}

async fn sessions_end_with_what_ends_the_user(bench: Bench) {
    let store = bench.store().await;
    made(&store, AccountChange::AddUser(user("ada"))).await;
    store.add_session(session("ada", 1, 0), HASH, 5).await.unwrap();
    made(&store, AccountChange::Disable { user: "ada".into() }).await;
    assert!(!lives(&store, 1, 1).await);
    store.add_session(session("ada", 2, 0), HASH, 5).await.unwrap();
    made(&store, AccountChange::Enable { user: "ada".into() }).await;
    assert!(!lives(&store, 1, 1).await && !lives(&store, 2, 1).await);
    store.add_session(session("ada", 3, 0), HASH, 5).await.unwrap();
    made(&store, AccountChange::DeleteUser { user: "ada".into() }).await;
    made(&store, AccountChange::AddUser(user("ada"))).await;
    assert!(!lives(&store, 3, 1).await);
    store.add_session(session("nobody", 4, 0), HASH, 5).await.unwrap();
    made(&store, AccountChange::AddUser(user("nobody"))).await;
    assert!(!lives(&store, 4, 1).await);
}

async fn a_new_password_ends_all_sessions_but_the_one_that_set_it(bench: Bench) {
    let store = bench.store().await;
    made(&store, AccountChange::AddUser(user("ada"))).await;
    for number in 1..=3 {
        store.add_session(session("ada", number, 0), HASH, 5).await.unwrap();
    }
    made(&store, set_password("ada", "new", Some([2; 32]))).await;
    let mut living = Vec::new();
    for number in 1..=3 {
        living.push(lives(&store, number, 1).await);
    }
    assert_eq!(living, [false, true, false]);
}

async fn a_password_that_was_changed_while_it_was_checked_begins_no_session(bench: Bench) {
    let store = bench.store().await;
    made(&store, AccountChange::AddUser(user("ada"))).await;
    made(&store, set_password("ada", "new", None)).await;
    assert!(!store.add_session(session("ada", 1, 0), HASH, 5).await.unwrap());
    assert!(!lives(&store, 1, 1).await);
    assert_eq!(store.superusers().await.unwrap()[0].last_login_at, None);
    assert!(store.add_session(session("ada", 1, 0), "new", 5).await.unwrap());
    assert!(lives(&store, 1, 1).await);
    assert!(!store.add_session(session("nobody", 2, 0), HASH, 5).await.unwrap());
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

async fn the_log_tells_who_changed_which_user_and_key(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("ada", 1, 1)]))).await.unwrap();
    let description = done(&store, describe("ada", "an event of the same name")).await;
    made(&store, AccountChange::AddUser(user("ada"))).await;
    made(&store, set_password("ada", "new", None)).await;
    for change in [
        AccountChange::Disable { user: "ada".into() },
        AccountChange::Enable { user: "ada".into() },
        AccountChange::SignOut { user: "ada".into() },
        AccountChange::DeleteUser { user: "ada".into() },
        AccountChange::AddKey(key("ci", 1)),
        AccountChange::AddKey(AdminKey { expires_at: Some(later(0)), ..key("ci", 2) }),
        AccountChange::RevokeKey { id: 1 },
    ] {
        made(&store, change).await;
    }
    // What was not done is not told.
    for change in [AccountChange::DeleteUser { user: "ada".into() }, AccountChange::RevokeKey { id: 1 }] {
        assert!(!made(&store, change).await);
    }
    let log = store.changes(vec![], None, 100).await.unwrap();
    let lines: Vec<_> = log.iter().map(|line| (&*line.what, line.account.as_deref(), &told(line).1[0])).collect();
    let expires = Fact::KeyExpires { at: later(0) };
    let described = Fact::Description { text: "an event of the same name".into() };
    assert_eq!(
        lines,
        [
            ("revoke key", Some("key 1 (ci)"), &Fact::KeyRevoked),
            ("create key", Some("key 2 (ci)"), &expires),
            ("create key", Some("key 1 (ci)"), &Fact::KeyDoesNotExpire),
            ("delete user", Some("ada"), &Fact::UserDeleted),
            ("sign out", Some("ada"), &Fact::SignedOutEverywhere),
            ("enable user", Some("ada"), &Fact::MaySignIn),
            ("disable user", Some("ada"), &Fact::MayNotSignIn),
            ("set password", Some("ada"), &Fact::SignedOutEverywhere),
            ("add user", Some("ada"), &Fact::MaySignIn),
            ("describe", None, &described),
        ]
    );
    assert!(log[..9].iter().all(|line| line.is_of_key() == line.what.contains("key") && told(line).0.is_empty()));
    assert!(log[..9].iter().all(|line| line.who == "eve" && !line.can_undo && line.event.is_none()));
    assert_eq!(log[0].at.timestamp_micros(), now().timestamp_micros());
    // One numbering with the changes of events, whose own log knows nothing of it.
    let numbers: Vec<_> = log.iter().rev().map(|line| line.change).collect();
    assert_eq!(numbers, (1..=10).collect::<Vec<_>>());
    assert_eq!(store.catalog().await.unwrap().version, 10);
    assert_eq!(store.changes(vec![name("ada")], None, 100).await.unwrap(), log[9..]);
    refused(&store, Change::Undo { change: 2 }, "no change 2 of an event").await;
    done(&store, Change::Undo { change: description }).await;
}

async fn a_key_works_until_it_expires_or_is_revoked(bench: Bench) {
    let store = bench.store().await;
    assert!(made(&store, AccountChange::AddKey(key("ci", 1))).await);
    assert!(made(&store, AccountChange::AddKey(AdminKey { expires_at: Some(later(100)), ..key("short", 2) })).await);
    let ids: Vec<i64> = store.admin_keys().await.unwrap().iter().map(|key| key.id).collect();
    let [ci, short] = ids[..] else { panic!("{ids:?}") };
    assert!(ci < short);
    assert!(store.change_account(AccountChange::AddKey(key("copy", 1)), "eve", now()).await.is_err());
    assert_eq!(store.use_admin_key([1; 32], later(1)).await.unwrap().unwrap().label, "ci");
    assert_eq!(store.use_admin_key([3; 32], later(1)).await.unwrap(), None);
    assert!(store.use_admin_key([2; 32], later(99)).await.unwrap().is_some());
    assert_eq!(store.use_admin_key([2; 32], later(100)).await.unwrap(), None);
    assert!(made(&store, AccountChange::RevokeKey { id: ci }).await);
    assert!(!made(&store, AccountChange::RevokeKey { id: ci }).await);
    assert!(!made(&store, AccountChange::RevokeKey { id: 99 }).await);
    assert_eq!(store.use_admin_key([1; 32], later(7)).await.unwrap(), None);
    let keys = store.admin_keys().await.unwrap();
    let told: Vec<_> = keys.iter().map(|key| (key.id, key.label.as_str(), key.revoked_at.is_some())).collect();
    assert_eq!(told, [(ci, "ci", true), (short, "short", false)]);
    assert_eq!((keys[1].hint.as_str(), keys[1].secret_hash), ("evt_ab", [2; 32]));
}

async fn the_use_of_a_key_is_noted_at_most_once_a_minute(bench: Bench) {
    let store = bench.store().await;
    made(&store, AccountChange::AddKey(key("ci", 1))).await;
    for (used_at, noted) in [(10, 10), (69, 10), (70, 70), (71, 70)] {
        let used = store.use_admin_key([1; 32], later(used_at)).await.unwrap().unwrap().last_used_at.unwrap();
        let listed = store.admin_keys().await.unwrap()[0].last_used_at.unwrap();
        assert_eq!((used, listed.timestamp_micros()), (listed, later(noted).timestamp_micros()));
    }
}
