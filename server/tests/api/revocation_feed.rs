//! The feed of revocations: who may read it, what it says, and that a reader can always go on.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Response, StatusCode};
use serde_json::Value;
use server::domain::clock::{Clock as _, ManualClock, SystemClock, Timestamp};

use crate::app::TestApp;
use crate::keys::{kid, revoke};
use crate::node::{Node, Remote, http};
use crate::scale;

/// One event of a stream.
#[derive(Clone, Debug)]
struct Event {
    kind: String,
    id: u64,
    data: Value,
}

/// A reader of the test's own, independent of the product's.
struct Reader {
    response: Response,
    rest: String,
}

impl Reader {
    async fn open(node: &Node, token: &str, path: &str) -> Self {
        let response = node.get(path, token).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self::of(response).await
    }

    /// A stream that was opened, and says so.
    async fn of(response: Response) -> Self {
        let mut stream = Self {
            response,
            rest: String::new(),
        };
        let first = stream.next().await.expect("a first event");
        assert_eq!(first.kind, "opened");
        assert!(first.data["at"].is_i64(), "{first:?}");
        stream
    }

    /// The next event; none at the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.rest.find("\n\n") {
                let rest = self.rest.split_off(end + 2);
                let event = std::mem::replace(&mut self.rest, rest);
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(name));
                    line.unwrap_or_else(|| panic!("{name} in {event}")).to_owned()
                };
                let event = Event {
                    kind: field("event: "),
                    id: field("id: ").parse().expect("a number"),
                    data: serde_json::from_str(&field("data: ")).expect("JSON"),
                };
                return Some(event);
            }
            let chunk = tokio::time::timeout(Duration::from_secs(10), self.response.chunk());
            let chunk = chunk.await.expect("something within ten seconds").ok()??;
            self.rest.push_str(std::str::from_utf8(&chunk).expect("text"));
        }
    }

    /// The next revocation.
    async fn revoked(&mut self) -> Event {
        loop {
            let event = self.next().await.expect("the stream goes on");
            if event.kind == "revoked" {
                return event;
            }
            assert_eq!(event.kind, "heartbeat");
        }
    }

    /// Everything until the end.
    async fn read_to_end(mut self) -> usize {
        let read = async {
            let mut count = 0;
            while self.next().await.is_some() {
                count += 1;
            }
            count
        };
        tokio::time::timeout(Duration::from_secs(10), read)
            .await
            .expect("it ends")
    }
}

fn short(id: &str) -> String {
    let id: server::domain::id::SessionId = id.parse().expect("an id");
    id.to_short()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r15_only_services_with_the_scope_read_the_feed() {
    let app = TestApp::start("r15 who").await;
    let node = Node::beside(&app, "a").await;
    let person = app.add_person("max", &["member"], false).await;
    let member = Remote::sign_in(&node, &person).await;
    let (id, reader) = node.service_token("reader", "revocations").await;
    let (_, other) = node.service_token("other", "orders").await;
    for path in ["/oauth/revocations", "/oauth/revocations/stream"] {
        let anonymous = http()
            .get(format!("{}{path}", node.url))
            .send()
            .await
            .expect("an answer");
        assert_eq!(anonymous.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert!(anonymous.headers().contains_key("www-authenticate"));
        for (token, expected) in [(&member.access, 401), (&other, 403), (&reader, 200)] {
            let answer = node.get(path, token).await;
            assert_eq!(answer.status().as_u16(), expected, "{path}: {token}");
        }
    }
    // Shut out: its stream ends at once, and it gets no other.
    let stream = Reader::open(&node, &reader, "/oauth/revocations/stream").await;
    let backend = &node.application.state().backend;
    assert!(backend.disable_client(&id).await.expect("the database answers"));
    stream.read_to_end().await;
    assert_eq!(
        node.get("/oauth/revocations", &reader).await.status(),
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r15_the_feed_says_what_was_revoked_and_nothing_else() {
    let app = TestApp::start("r15 what").await;
    let node = Node::beside(&app, "a").await;
    let (_, token) = node.service_token("reader", "revocations").await;
    let person = app.add_person("max", &["member"], false).await;
    let member = Remote::sign_in(&node, &person).await;
    let empty: Value = node.get("/oauth/revocations", &token).await.json().await.expect("JSON");
    assert_eq!(
        (empty["cursor"].as_u64(), &empty["revocations"]),
        (Some(0), &Value::Array(vec![]))
    );
    let mut stream = Reader::open(&node, &token, "/oauth/revocations/stream").await;
    let first = stream.next().await.expect("a first event");
    assert_eq!(first.kind, "heartbeat");
    let number = |name: &str| first.data[name].as_i64().expect("a number");
    assert!(number("as_of") <= number("at") && number("at") - number("as_of") < 5000);

    assert_eq!(member.end(&node).await, StatusCode::OK);
    let told = stream.revoked().await;
    let entry = told.data.as_object().expect("an object");
    let mut names: Vec<&str> = entry.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["at", "cursor", "sid", "until"]);
    assert_eq!(entry["sid"], short(&member.session_id));
    assert_eq!((told.id, entry["cursor"].as_u64()), (1, Some(1)));
    let life = entry["until"].as_i64().expect("ms") - entry["at"].as_i64().expect("ms");
    assert!(
        (3_720_001..=3_840_000).contains(&life),
        "the longest an access token can live by any node's clock: {life} ms"
    );
    let snapshot: Value = node.get("/oauth/revocations", &token).await.json().await.expect("JSON");
    assert_eq!(
        (snapshot["cursor"].as_u64(), &snapshot["revocations"][0]),
        (Some(1), &told.data)
    );

    // Heartbeats go on, and know more each time.
    let mut as_of = 0;
    for _ in 0..3 {
        let beat = stream.next().await.expect("it goes on");
        assert_eq!((beat.kind.as_str(), beat.id), ("heartbeat", 1));
        let now = beat.data["as_of"].as_i64().expect("ms");
        assert!(now > as_of);
        as_of = now;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r15_a_reader_that_comes_again_misses_nothing_and_hears_nothing_twice() {
    let app = TestApp::start("r15 again").await;
    let (a, b) = (Node::beside(&app, "a").await, Node::beside(&app, "b").await);
    let (_, token) = a.service_token("reader", "revocations").await;
    let person = app.add_person("max", &["member"], false).await;
    let mut expected = Vec::new();
    let mut heard = Vec::new();
    let mut cursor = 0;
    for round in 0..4 {
        let before = Remote::sign_in(&a, &person).await;
        assert_eq!(before.end(&a).await, StatusCode::OK);
        // Of another node each time, by both ways of saying where to go on.
        let node = if round % 2 == 0 { &b } else { &a };
        let mut stream = if round < 2 {
            Reader::open(node, &token, &format!("/oauth/revocations/stream?cursor={cursor}")).await
        } else {
            let response = http()
                .get(format!("{}/oauth/revocations?cursor=0", node.url))
                .header("accept", "text/event-stream")
                .header("last-event-id", cursor.to_string())
                .bearer_auth(&token)
                .send()
                .await
                .expect("an answer");
            Reader::of(response).await
        };
        let during = Remote::sign_in(&a, &person).await;
        assert_eq!(during.end(&b).await, StatusCode::OK);
        expected.extend([short(&before.session_id), short(&during.session_id)]);
        for _ in 0..2 {
            let event = stream.revoked().await;
            assert!(event.id > cursor, "in order");
            cursor = event.id;
            heard.push(event.data["sid"].as_str().expect("a session").to_owned());
        }
    }
    assert_eq!(heard, expected);

    let unknown = a.get("/oauth/revocations/stream?cursor=999", &token).await;
    assert_eq!(unknown.status(), StatusCode::GONE);
    for strange in ["?cursor=x", "?cursor=-1", "?from=1"] {
        let answer = a.get(&format!("/oauth/revocations/stream{strange}"), &token).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{strange}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f59_thousands_of_revocations_are_told_page_by_page_and_none_is_missing() {
    const MANY: u64 = 3500;
    let app = TestApp::start("f59 pages").await;
    let node = Node::beside(&app, "a").await;
    let (_, token) = node.service_token("reader", "revocations").await;
    let mut open = Reader::open(&node, &token, "/oauth/revocations/stream").await;
    app.execute(&format!(
        "INSERT INTO revocations (cursor, kind, value, below_generation, issued_before, at, until) \
         WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {MANY}) \
         SELECT n, 'key', 'key-' || n, NULL, NULL, 0, 9000000000000 FROM numbers"
    ))
    .await;
    app.execute(&format!("UPDATE revocation_cursor SET last = {MANY}"))
        .await;
    for n in 1..=MANY {
        assert_eq!(open.revoked().await.id, n, "news to who was there before");
    }
    let snapshot: Value = node.get("/oauth/revocations", &token).await.json().await.expect("JSON");
    assert_eq!(snapshot["cursor"].as_u64(), Some(MANY));
    let keys: Vec<&str> = snapshot["revocations"]
        .as_array()
        .expect("entries")
        .iter()
        .map(|entry| entry["kid"].as_str().expect("a key"))
        .collect();
    let expected = |after: u64| (after + 1..=MANY).map(|n| format!("key-{n}")).collect::<Vec<_>>();
    assert_eq!(keys, expected(0));
    for after in [0, 1, 999, 1000, 1001, MANY - 1, MANY] {
        let mut stream = Reader::open(&node, &token, &format!("/oauth/revocations/stream?cursor={after}")).await;
        let mut told = Vec::new();
        let beat = loop {
            let event = stream.next().await.expect("it goes on");
            if event.kind == "heartbeat" {
                break event;
            }
            told.push(event.data["kid"].as_str().expect("a key").to_owned());
        };
        assert_eq!(
            (told, beat.id),
            (expected(after), MANY),
            "no heartbeat before everything was told"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f75_streams_end_when_the_server_stops() {
    let app = TestApp::start("f75 streams").await;
    let node = Node::beside(&app, "a").await;
    let (_, token) = node.service_token("reader", "revocations").await;
    let stream = Reader::open(&node, &token, "/oauth/revocations/stream").await;
    node.application.state().draining.begin();
    stream.read_to_end().await;
}

/// Asks for a stream until that is answered so.
async fn until_answered(node: &Node, token: &str, status: StatusCode) {
    let asking = async {
        while node.get("/oauth/revocations/stream", token).await.status() != status {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), asking)
        .await
        .unwrap_or_else(|_| panic!("never {status}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r15_streams_are_as_many_as_there_is_room_for_and_one_client_leaves_half_of_it_to_others() {
    let app = TestApp::start("streams").await;
    let node = Node::beside(&app, "a").await;
    let fill = async |name: &str| {
        let (_, token) = node.service_token(name, "revocations").await;
        let mut streams = Vec::new();
        let full = loop {
            let answer = node.get("/oauth/revocations/stream", &token).await;
            if answer.status() != StatusCode::OK {
                break answer;
            }
            streams.push(answer);
            assert!(streams.len() <= 512);
        };
        assert_eq!(full.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(full.headers().contains_key("retry-after"));
        (streams, token)
    };
    let (mut greedy, token) = fill("greedy").await;
    let (other, _) = fill("other").await;
    let (third, _) = fill("third").await;
    assert_eq!((greedy.len(), other.len(), third.len()), (256, 256, 0));
    // One goes, another comes.
    greedy.pop();
    until_answered(&node, &token, StatusCode::OK).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn j12_a_stream_ends_with_the_key_that_signed_its_token() {
    let app = TestApp::start("j12 stream").await;
    let node = Node::beside(&app, "a").await;
    let (_, token) = node.service_token("reader", "revocations").await;
    let stream = Reader::open(&node, &token, "/oauth/revocations/stream").await;
    revoke(&app, &kid(&token)).await;
    let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end()).await;
    assert!(ended.is_ok(), "it goes on");
    until_answered(&node, &token, StatusCode::UNAUTHORIZED).await;
}

/// Readers reckon when they knew everything by one clock from the beginning of a stream to its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f17_a_stream_ends_when_the_clock_of_its_node_is_set() {
    let app = TestApp::start("f17 stream").await;
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let node = Node::beside_by(&app, "a", &[], clock.clone()).await;
    let (_, token) = node.service_token("reader", "revocations").await;
    for step in [5_000, -5_000] {
        let stream = Reader::open(&node, &token, "/oauth/revocations/stream").await;
        clock.advance(Duration::from_secs(10));
        let ending = tokio::spawn(stream.read_to_end());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!ending.is_finished(), "time that passes is no reason");
        clock.set(Timestamp::from_millis(clock.now().as_millis() + step));
        let ended = tokio::time::timeout(Duration::from_secs(5), ending).await;
        assert!(matches!(ended, Ok(Ok(_))), "it goes on: {step}");
    }
}

/// As after a failover that lost the last commits, with nodes that were started since: nobody remembers them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f8_a_reader_whose_last_number_was_given_to_another_revocation_begins_anew() {
    let app = TestApp::start("f8 given again").await;
    let node = Node::beside(&app, "a").await;
    let (_, token) = node.service_token("reader", "revocations").await;
    let person = app.add_person("max", &["member"], false).await;
    let mut remotes = Vec::new();
    for _ in 0..4 {
        remotes.push(Remote::sign_in(&node, &person).await);
    }
    let mut stream = Reader::open(&node, &token, "/oauth/revocations/stream").await;
    let mut seen = Vec::new();
    for remote in &remotes[..2] {
        assert_eq!(remote.end(&node).await, StatusCode::OK);
        let entry = stream.revoked().await;
        seen.push(format!("{}-{}", entry.id, entry.data["at"]));
    }
    drop(stream);
    drop(node);
    app.execute("DELETE FROM revocations WHERE cursor = (SELECT last FROM revocation_cursor)")
        .await;
    app.execute("UPDATE revocation_cursor SET last = last - 1").await;
    app.pass(1);
    let node = Node::beside(&app, "b").await;
    for remote in &remotes[2..] {
        assert_eq!(remote.end(&node).await, StatusCode::OK);
    }
    let asked = async |query: String| {
        let answer = node.get(&format!("/oauth/revocations/stream{query}"), &token).await;
        answer.status()
    };
    assert_eq!(asked(format!("?cursor=2&seen={}", seen[1])).await, StatusCode::GONE);
    // What it says of itself is true: 1 is still the same, and of 2 it has heard what it is now.
    let mut anew = Reader::open(
        &node,
        &token,
        &format!("/oauth/revocations/stream?cursor=1&seen={}", seen[0]),
    )
    .await;
    let second = anew.revoked().await;
    assert_eq!(second.data["sid"], short(&remotes[2].session_id));
    assert_eq!(
        asked(format!("?cursor=2&seen=2-{}", second.data["at"])).await,
        StatusCode::OK
    );
    for strange in ["?seen=2", "?seen=2-x", "?seen=-2", "?seen=x-2"] {
        assert_eq!(asked(strange.to_owned()).await, StatusCode::BAD_REQUEST, "{strange}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_older_database_was_restored_readers_begin_anew_and_hear_what_comes() {
    let app = TestApp::start("restored").await;
    let node = Node::beside(&app, "a").await;
    let (_, token) = node.service_token("reader", "revocations").await;
    let person = app.add_person("max", &["member"], false).await;
    let (first, second) = (
        Remote::sign_in(&node, &person).await,
        Remote::sign_in(&node, &person).await,
    );
    let mut stream = Reader::open(&node, &token, "/oauth/revocations/stream").await;
    assert_eq!(first.end(&node).await, StatusCode::OK);
    stream.revoked().await;
    app.execute("DELETE FROM revocations").await;
    app.execute("UPDATE revocation_cursor SET last = 0").await;
    stream.read_to_end().await;
    // A number that nobody ever gave.
    assert_eq!(
        node.get("/oauth/revocations/stream?cursor=5000000000000", &token)
            .await
            .status(),
        StatusCode::GONE
    );
    let mut anew = Reader::open(&node, &token, "/oauth/revocations/stream").await;
    // What comes now has numbers beyond those of before.
    let mut further = Reader::open(&node, &token, "/oauth/revocations/stream?cursor=1").await;
    assert_eq!(second.end(&node).await, StatusCode::OK);
    for stream in [&mut anew, &mut further] {
        assert_eq!(stream.revoked().await.data["sid"], short(&second.session_id));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_that_nobody_called_out_is_found_within_a_second() {
    let app = TestApp::start("not called").await;
    let node = Node::beside(&app, "a").await;
    let (_, token) = node.service_token("reader", "revocations").await;
    let mut stream = Reader::open(&node, &token, "/oauth/revocations/stream").await;
    app.execute(
        "INSERT INTO revocations (cursor, kind, value, below_generation, issued_before, at, until) \
         VALUES (1, 'key', 'lost', NULL, NULL, 0, 9000000000000)",
    )
    .await;
    app.execute("UPDATE revocation_cursor SET last = 1").await;
    let heard = tokio::time::timeout(Duration::from_secs(scale(5, 1).into()), stream.revoked());
    assert_eq!(heard.await.expect("in time").data["kid"], "lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_a_stream_ends_when_its_token_is_given_back() {
    let app = TestApp::start("given back").await;
    let node = Node::beside(&app, "a").await;
    let (_, gone) = node.service_token("reader", "revocations").await;
    let (_, kept) = node.service_token("another", "revocations").await;
    let stream = Reader::open(&node, &gone, "/oauth/revocations/stream").await;
    let mut other = Reader::open(&node, &kept, "/oauth/revocations/stream").await;
    let backend = &node.application.state().backend;
    let from = server::domain::audit::Circumstances::default();
    backend.revoke_token(&gone, None, &from).await.expect("answers");
    let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end());
    ended.await.expect("at once");
    assert!(other.revoked().await.data["jti"].is_string());
    assert_eq!(
        node.get("/oauth/revocations/stream", &gone).await.status(),
        StatusCode::UNAUTHORIZED
    );
}
