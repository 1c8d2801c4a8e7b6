//! A bad network between a program and the server: slow, and one connection in ten cut, before or after the request went
//! through.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use server::domain::random::{SystemRandom, secret};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::clients::{Client, check};
use crate::place::Place;
use crate::serving::{Serving, Way};
use crate::{MACHINE, scale};

/// What the network did.
#[derive(Debug, Default)]
struct Done {
    connections: AtomicUsize,
    /// Cut before the server saw anything of it.
    cut_before: AtomicUsize,
    /// Cut after the request was on its way: the server carries it out, now or seconds later, and nobody hears of it.
    cut_after: AtomicUsize,
}

/// A network with one end here.
struct Network {
    address: SocketAddr,
    carrying: JoinHandle<()>,
}

impl Drop for Network {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

impl Network {
    async fn to(server: SocketAddr, slowest: Duration, done: Arc<Done>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let carrying = tokio::spawn(async move {
            let random = SystemRandom::default();
            loop {
                let (client, _) = listener.accept().await.expect("a connection");
                let turn = done.connections.fetch_add(1, Ordering::SeqCst);
                // Every third takes the whole time, those that are cut among them.
                let part = if turn % 3 == 2 {
                    u16::MAX
                } else {
                    u16::from_le_bytes(*secret::<2>(&random))
                };
                let delay = slowest * u32::from(part) / u32::from(u16::MAX);
                let done = done.clone();
                tokio::spawn(async move {
                    // A connection that breaks is what this is about; who waits for an answer finds out.
                    drop(carry(client, server, turn, delay, &done).await);
                });
            }
        });
        Self { address, carrying }
    }
}

async fn carry(
    mut client: TcpStream,
    server: SocketAddr,
    turn: usize,
    delay: Duration,
    done: &Done,
) -> std::io::Result<()> {
    let request = read_request(&mut client).await?;
    if turn % 20 == 9 {
        done.cut_before.fetch_add(1, Ordering::SeqCst);
        return Ok(());
    }
    if turn % 20 == 19 {
        done.cut_after.fetch_add(1, Ordering::SeqCst);
        drop(client);
        tokio::time::sleep(delay).await;
        let mut server = TcpStream::connect(server).await?;
        server.write_all(&request).await?;
        // Until the answer begins.
        server.read_u8().await?;
        return Ok(());
    }
    tokio::time::sleep(delay / 2).await;
    let mut server = TcpStream::connect(server).await?;
    server.write_all(&request).await?;
    tokio::time::sleep(delay / 2).await;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// One request with its body.
async fn read_request(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut read = Vec::new();
    loop {
        if client.read_buf(&mut read).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8_lossy(&read);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().expect("a length"))
        });
        if body.len() >= length.unwrap_or(0) {
            return Ok(read);
        }
    }
}

/// Refreshes as a program should: without an answer it asks again with the token it holds, and then it uses what it got.
/// How often it got no answer.
async fn refresh_once(way: &Way, client: &mut Client) -> usize {
    let mut lost = 0;
    loop {
        assert!(lost < 100, "no answer at all");
        match way.refresh(&client.token).await {
            Ok(answer) => {
                // Anything that would sign it out fails here.
                client.take(&answer);
                assert_eq!(
                    answer.status, 200,
                    "the token it holds is never too old nor too new: {answer:?}"
                );
                break;
            }
            Err(_) => lost += 1,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    loop {
        assert!(lost < 100, "no answer at all");
        match way.get("/api/v1/me", &client.access).await {
            Ok(answer) => {
                assert_eq!(answer.status, 200, "{answer:?}");
                return lost;
            }
            Err(_) => lost += 1,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f74_on_a_slow_network_that_cuts_connections_nobody_is_signed_out() {
    let _turn = MACHINE.lock().await;
    let (people, rounds) = (scale(8, 10), scale(5, 20));
    let slowest = Duration::from_millis(scale(200, 5000) as u64);
    let place = Place::make().await;
    let mut clients = place.people(people).await;
    let (done, mut lost) = (Arc::new(Done::default()), 0);
    for _ in 0..rounds {
        place.let_pass(11).await;
        let serving = Serving::start(&place).await;
        let network = Network::to(serving.address(), slowest, done.clone()).await;
        let mut refreshing = tokio::task::JoinSet::new();
        for mut client in clients.drain(..) {
            let way = Serving::through(network.address);
            refreshing.spawn(async move { (refresh_once(&way, &mut client).await, client) });
        }
        while let Some(refreshed) = refreshing.join_next().await {
            let (missed, client) = refreshed.expect("it was not signed out");
            lost += missed;
            clients.push(client);
        }
        // What is still on its way arrives.
        tokio::time::sleep(slowest).await;
        drop(network);
        serving.kill();
    }
    println!(
        "{} refreshes, {lost} requests without an answer; {done:?}",
        people * rounds
    );
    let (before, after) = (
        done.cut_before.load(Ordering::SeqCst),
        done.cut_after.load(Ordering::SeqCst),
    );
    assert!(before > 0 && after > 0, "the network was bad");
    let serving = Serving::start(&place).await;
    for client in &clients {
        let answer = serving.get("/api/v1/me", &client.access).await.expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    serving.kill();
    check(&place, &clients).await;
    for client in &clients {
        assert_eq!(client.tokens.len(), rounds + 1, "one new token in each round");
    }
    let jumps = "SELECT kind, facts, at FROM audit_events WHERE kind = 'clock_jump'";
    assert_eq!(place.rows(jumps).await, [], "and no clock was thought to have jumped");
}
