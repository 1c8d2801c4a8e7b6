//! A mail server, independent of the product: a port on loopback that speaks as much SMTP (RFC 5321) as it takes, keeps what
//! arrives and answers as the test wants.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A mail that arrived.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// Of the envelope.
    pub recipient: String,
    /// Headers by name in lower case, unfolded.
    pub headers: HashMap<String, String>,
    /// The text, decoded.
    pub text: String,
}

impl Arrived {
    fn read(recipient: &str, lines: &[String]) -> Self {
        let end = lines.iter().position(String::is_empty).expect("headers end");
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in &lines[..end] {
            if line.starts_with([' ', '\t']) {
                headers.last_mut().expect("a line before").1 += line;
            } else {
                let (name, value) = line.split_once(": ").expect("a header");
                headers.push((name.to_ascii_lowercase(), value.to_owned()));
            }
        }
        let names = headers.len();
        let headers: HashMap<_, _> = headers.into_iter().collect();
        assert_eq!(headers.len(), names, "each header once");
        // What the product says is ASCII; only names of people may not be.
        let encoding = headers.get("content-transfer-encoding").map_or("7bit", String::as_str);
        let text = lines[end + 1..].join("\n");
        let text = match encoding {
            "7bit" => text,
            "quoted-printable" => decoded(&text),
            other => panic!("{other}"),
        };
        Self {
            recipient: recipient.to_owned(),
            headers,
            text,
        }
    }

    /// A header.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("{name}: {self:?}"))
    }
}

fn decoded(text: &str) -> String {
    let joined = text.replace("=\n", "");
    let (mut bytes, mut rest) = (Vec::new(), joined.as_bytes());
    while let Some((first, others)) = rest.split_first() {
        if *first == b'=' {
            let pair = std::str::from_utf8(&others[..2]).expect("two digits");
            bytes.push(u8::from_str_radix(pair, 16).expect("hexadecimal"));
            rest = &others[2..];
        } else {
            bytes.push(*first);
            rest = others;
        }
    }
    String::from_utf8(bytes).expect("text")
}

/// What it does when it has a whole mail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterMail {
    /// Says that it took it.
    #[default]
    Takes,
    /// The same, and ends the connection at the next mail.
    TakesOne,
    /// Says that it took it, after a while.
    TakesSlowly,
    /// Says nothing.
    Mute,
    /// Ends the connection without a word.
    HangsUp,
}

#[derive(Default)]
struct Desk {
    arrived: Vec<Arrived>,
    /// The next answers to a recipient; then 250.
    to_recipients: VecDeque<&'static str>,
    /// What it says of whom a mail is from, if not 250.
    to_senders: Option<&'static str>,
    after_mail: AfterMail,
}

/// The server.
pub struct MailServer {
    desk: Arc<Mutex<Desk>>,
    /// Where it is.
    pub address: SocketAddr,
    serving: Option<JoinHandle<()>>,
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.go_away();
    }
}

impl MailServer {
    /// Listens on a port of its own.
    pub async fn begin() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let mut server = Self {
            desk: Arc::default(),
            address,
            serving: None,
        };
        server.serve(listener);
        server
    }

    fn serve(&mut self, listener: TcpListener) {
        let desk = self.desk.clone();
        self.serving = Some(tokio::spawn(async move {
            // Connections end with it.
            let mut talking = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let desk = desk.clone();
                talking.spawn(async move { drop(talk(stream, &desk).await) });
            }
        }));
    }

    /// Nobody listens any more.
    pub fn go_away(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
    }

    /// It listens again, where it did.
    pub async fn come_back(&mut self) {
        for _ in 0..200 {
            if let Ok(listener) = TcpListener::bind(self.address).await {
                return self.serve(listener);
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("its port is taken");
    }

    /// The application's settings for it.
    pub fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    /// How it answers the next recipients, before it goes back to taking them.
    pub fn will_answer(&self, answers: impl IntoIterator<Item = &'static str>) {
        locked(&self.desk).to_recipients = answers.into_iter().collect();
    }

    /// What it says of whom mails are from, if not 250.
    pub fn answers_senders(&self, answer: Option<&'static str>) {
        locked(&self.desk).to_senders = answer;
    }

    /// What it does when it has a whole mail.
    pub fn after_mails(&self, manner: AfterMail) {
        locked(&self.desk).after_mail = manner;
    }

    /// What arrived since the last look.
    pub fn arrived(&self) -> Vec<Arrived> {
        std::mem::take(&mut locked(&self.desk).arrived)
    }

    /// Waits for so many, of a program that sends by itself.
    pub async fn wait_for(&self, count: usize) -> Vec<Arrived> {
        for _ in 0..4000 {
            if locked(&self.desk).arrived.len() >= count {
                return self.arrived();
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("{count} mails in 20 s: {:?}", self.arrived());
    }
}

fn locked(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn talk(stream: TcpStream, desk: &Mutex<Desk>) -> std::io::Result<()> {
    let (reading, mut writing) = stream.into_split();
    let mut lines = BufReader::new(reading).lines();
    writing.write_all(b"220 mail.test\r\n").await?;
    let (mut recipient, mut is_last) = (String::new(), false);
    while let Some(line) = lines.next_line().await? {
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        let answer = match verb.as_str() {
            "EHLO" => "250-mail.test\r\n250 8BITMIME".to_owned(),
            "RCPT" => {
                let to = line.split(['<', '>']).nth(1).expect("an address");
                recipient = to.to_owned();
                locked(desk).to_recipients.pop_front().unwrap_or("250 ok").to_owned()
            }
            "DATA" => {
                writing.write_all(b"354 go on\r\n").await?;
                let mut mail = Vec::new();
                while let Some(line) = lines.next_line().await? {
                    if line == "." {
                        break;
                    }
                    mail.push(line.strip_prefix('.').unwrap_or(&line).to_owned());
                }
                let manner = {
                    let mut desk = locked(desk);
                    desk.arrived.push(Arrived::read(&recipient, &mail));
                    desk.after_mail
                };
                match manner {
                    AfterMail::Takes => {}
                    AfterMail::TakesOne => is_last = true,
                    AfterMail::TakesSlowly => tokio::time::sleep(std::time::Duration::from_millis(30)).await,
                    AfterMail::Mute => std::future::pending::<()>().await,
                    AfterMail::HangsUp => return Ok(()),
                }
                "250 taken".to_owned()
            }
            "QUIT" => {
                writing.write_all(b"221 bye\r\n").await?;
                return Ok(());
            }
            "MAIL" if is_last => "421 4.7.0 one mail for each connection".to_owned(),
            "MAIL" => locked(desk).to_senders.unwrap_or("250 ok").to_owned(),
            "RSET" | "NOOP" => "250 ok".to_owned(),
            _ => "502 unknown".to_owned(),
        };
        writing.write_all(format!("{answer}\r\n").as_bytes()).await?;
    }
    Ok(())
}
