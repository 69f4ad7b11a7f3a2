//! Server-sent events: who comes back hears what is new, and who does not read costs nobody anything.

use std::collections::BTreeSet;

use chrono::Utc;
use event_tracker::domain::Hour;
use event_tracker::store::admin::{AccountChange, AdminKey};
use sha2::{Digest, Sha256};
use socket2::SockRef;
use tokio::net::TcpSocket;

use super::*;
use crate::harness::{Backend, Superuser, TestApp};

/// A stream as a client has it.
impl Client {
    async fn listen(&mut self, key: &str, last_event_id: &str) {
        let last = if last_event_id.is_empty() { String::new() } else { format!("Last-Event-ID: {last_event_id}\r\n") };
        self.send(&format!("GET /admin/live HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n{last}\r\n")).await;
    }

    /// The ids of all messages that came whole, or nearly so.
    fn ids(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.received);
        text.split("\nid: ").skip(1).filter_map(|rest| Some(rest.split_once('\n')?.0.to_owned())).collect()
    }

    /// Reads on until a message with another id than these is there; gives it.
    async fn next_id(&mut self, but: &BTreeSet<String>) -> String {
        loop {
            if let Some(id) = self.ids().into_iter().find(|id| !but.contains(id)) {
                return id;
            }
            assert!(self.more().await, "the stream ended");
        }
    }
}

#[tokio::test]
async fn who_comes_back_after_a_restart_is_told_the_numbers_of_the_new_process() {
    let mut app = TestApp::start(Backend::Sqlite).await;
    let key = Superuser::of(&app).await.key;
    let connect = async |app: &TestApp, last: &str| {
        let mut client = Client { stream: TcpStream::connect(app.address()).await.unwrap(), received: Vec::new() };
        client.listen(&key, last).await;
        client
    };
    let first = connect(&app, "").await.next_id(&BTreeSet::new()).await;
    app.kill().await;
    app.restart().await;
    // Somebody who listens on, so that the new process has numbers of its own when the other comes.
    let mut other = connect(&app, "").await;
    let second = other.next_id(&BTreeSet::new()).await;
    assert_ne!(second, first, "the new numbers pass for the ones that were seen");
    connect(&app, &first).await.next_id(&BTreeSet::new()).await;
}

#[tokio::test]
async fn who_does_not_read_a_stream_has_little_waiting_and_then_the_latest_while_others_get_all() {
    const MESSAGES: usize = 14;
    let listener = server::listen("127.0.0.1:0").unwrap();
    // The kernel would hold megabytes for each client.
    SockRef::from(&listener).set_send_buffer_size(1).unwrap();
    let served = serve_on(listener, defaults()).await;
    let key = "etk_test";
    served.node.store.change_account(AccountChange::AddKey(admin_key(key)), "a test", Utc::now()).await.unwrap();

    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(1).unwrap();
    let mut slow = Client { stream: socket.connect(served.address).await.unwrap(), received: Vec::new() };
    slow.listen(key, "").await;
    let mut quick = served.connect().await;
    quick.listen(key, "").await;
    let mut seen = BTreeSet::new();
    let mut last = String::new();
    while seen.len() < MESSAGES {
        // Messages as long as they get.
        for number in 0..50 {
            let name = EventName::parse(&format!("{number:02}{}", "\"".repeat(253))).unwrap();
            served.node.batches.record(&name, Hour::containing(Utc::now()), 1).unwrap();
        }
        last = quick.next_id(&seen).await;
        seen.insert(last.clone());
    }
    while !slow.ids().contains(&last) {
        assert!(slow.more().await, "the stream ended");
    }
    let waiting = slow.ids().len();
    // Some are under way: about 64 kB each in the kernel, in what is gathered to be sent, and beyond.
    assert!(waiting <= MESSAGES - 4, "{waiting} of {MESSAGES} messages waited for who did not read");
}

fn admin_key(secret: &str) -> AdminKey {
    AdminKey {
        id: 0,
        label: "test".into(),
        secret_hash: Sha256::digest(secret).into(),
        hint: "etk_".into(),
        created_by: "a test".into(),
        created_at: Utc::now(),
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
    }
}
