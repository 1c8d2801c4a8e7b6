//! Tests on real sockets, on loopback only.

use std::sync::Mutex;

use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;

struct Running {
    address: SocketAddr,
    draining: Draining,
    stop: Option<oneshot::Sender<Stop>>,
    served: JoinHandle<Result<(), ListenError>>,
}

fn start(settings: Server, router: Router) -> Running {
    let listener = bind(&settings).unwrap();
    let address = listener.local_addr().unwrap();
    let draining = Draining::default();
    let (stop, stopped) = oneshot::channel();
    let watched = draining.clone();
    let served = tokio::spawn(async move {
        serve_on(listener, None, router, &settings, &watched, async {
            stopped.await.unwrap()
        })
        .await
    });
    Running {
        address,
        draining,
        stop: Some(stop),
        served,
    }
}

fn settings() -> Server {
    Server {
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        drain_seconds: 4,
        ..Server::default()
    }
}

async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may answer and close before everything is written.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn slow(started: Arc<Mutex<Option<oneshot::Sender<()>>>>, millis: u64) -> Router {
    let handler = move || async move {
        if let Some(started) = started.lock().unwrap().take() {
            started.send(()).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(millis)).await;
        "done"
    };
    Router::new().route("/", get(handler))
}

#[test]
fn m7_plain_http_off_loopback_is_refused() {
    let exposed = Server {
        address: SocketAddr::from(([0, 0, 0, 0], 0)),
        ..Server::default()
    };
    assert!(matches!(bind(&exposed), Err(ListenError::PlainHttp(_))));
}

#[tokio::test]
async fn f22_odd_headers_are_answered_with_4xx() {
    let running = start(settings(), Router::new().route("/", get(|| async { "fine" })));
    let plain = exchange(
        running.address,
        b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(plain.starts_with("HTTP/1.1 200") && plain.ends_with("fine"), "{plain}");
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(200));
    assert!(
        exchange(running.address, many.as_bytes())
            .await
            .starts_with("HTTP/1.1 431")
    );
    let large = format!("GET / HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n", "b".repeat(200_000));
    let answer = exchange(running.address, large.as_bytes()).await;
    // The rest of the header is still in flight when the answer goes out: the socket may be reset first.
    assert!(answer.starts_with("HTTP/1.1 431") || answer.is_empty(), "{answer}");
    let garbage = exchange(running.address, b"\x00\x01\x02 nonsense\r\n\r\n").await;
    assert!(garbage.starts_with("HTTP/1.1 400") || garbage.is_empty(), "{garbage}");
    let both = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef";
    assert!(exchange(running.address, both).await.starts_with("HTTP/1.1 400"));
    let preface = exchange(running.address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(preface.starts_with("HTTP/1.1 4") || preface.is_empty(), "{preface:?}");
}

#[tokio::test]
async fn f28_connections_beyond_the_limit_are_told_and_the_rest_goes_on() {
    let router = Router::new().route("/", get(|| async { "fine" }));
    let running = start(
        Server {
            max_connections: 2,
            ..settings()
        },
        router,
    );
    let one = TcpStream::connect(running.address).await.unwrap();
    let _two = TcpStream::connect(running.address).await.unwrap();
    let answer = exchange(running.address, b"").await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after"),
        "{answer}"
    );
    drop(one);
    let mut answer = String::new();
    for _ in 0..100 {
        answer = exchange(
            running.address,
            b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        )
        .await;
        if answer.starts_with("HTTP/1.1 200") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn f23_a_connection_on_which_nothing_moves_is_closed() {
    let (first, stall) = (Duration::from_millis(50), Duration::from_millis(100));
    let guard = Guard::new(1, first, stall, false);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, ()) = {
        use axum_server::accept::Accept as _;
        guard.accept(listener.accept().await.unwrap().0, ()).await.unwrap()
    };
    let mut guarded = stream;
    let mut byte = [0];
    for _ in 0..5 {
        client.write_all(b"x").await.unwrap();
        guarded.read_exact(&mut byte).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert_eq!(
        guarded.read_exact(&mut byte).await.unwrap_err().kind(),
        io::ErrorKind::TimedOut
    );
    // Slow reading: the peer takes nothing, the buffers fill, and then it is over as well.
    let filled = async {
        loop {
            if let Err(error) = guarded.write_all(&[0; 8192]).await {
                break error;
            }
        }
    };
    let error = tokio::time::timeout(Duration::from_secs(10), filled).await.unwrap();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn f75_a_request_in_flight_is_answered_and_readiness_goes_first() {
    let (started, has_started) = oneshot::channel();
    let mut running = start(settings(), slow(Arc::new(Mutex::new(Some(started))), 1500));
    let address = running.address;
    let request = tokio::spawn(async move { exchange(address, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await });
    has_started.await.unwrap();
    running.stop.take().unwrap().send(Stop::Announced).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(running.draining.has_begun());
    assert!(
        TcpStream::connect(address).await.is_ok(),
        "balancers get time to notice"
    );
    assert!(request.await.unwrap().ends_with("done"));
    tokio::time::timeout(Duration::from_secs(5), running.served)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn f75_what_takes_too_long_is_cut_off() {
    let (started, has_started) = oneshot::channel();
    let mut running = start(
        Server {
            drain_seconds: 1,
            ..settings()
        },
        slow(Arc::new(Mutex::new(Some(started))), 60_000),
    );
    let address = running.address;
    let request = tokio::spawn(async move { exchange(address, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await });
    has_started.await.unwrap();
    running.stop.take().unwrap().send(Stop::AtOnce).unwrap();
    tokio::time::timeout(Duration::from_secs(5), running.served)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(request.await.unwrap(), "");
}

#[test]
fn m10_tls_keys_that_everybody_can_read_are_refused_without_showing_them() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let files = Tls {
        cert: folder.path().join("cert.pem"),
        key: folder.path().join("key.pem"),
    };
    let refusal = || tls_config(&files).unwrap_err().to_string();
    assert!(refusal().contains("cert.pem"));
    std::fs::write(&files.cert, "").unwrap();
    assert!(refusal().contains("no certificate"));
    std::fs::write(
        &files.cert,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    assert!(refusal().contains("key.pem"));
    std::fs::write(&files.key, "CANARY").unwrap();
    std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(refusal().contains("0644"));
    std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(refusal().contains("key.pem") && !refusal().contains("CANARY"));
}
