//! An answer, read whole, with the few things tests ask of it.

use axum::body::Body;
use axum::http::header::{LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use http_body_util::BodyExt as _;

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body; all of ours are text.
    pub body: String,
}

impl Reply {
    /// Reads a response to its end.
    pub async fn read(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("the body ends").to_bytes();
        Self {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .get(name)
            .map(|value| value.to_str().expect("our headers are text"))
    }

    /// Where a redirect goes.
    #[track_caller]
    pub fn location(&self) -> &str {
        assert_eq!(self.status, StatusCode::SEE_OTHER, "{}", self.body);
        self.header(LOCATION.as_str()).expect("a redirect has a place")
    }

    /// All `Set-Cookie` lines.
    pub fn cookies(&self) -> Vec<&str> {
        self.headers
            .get_all(SET_COOKIE)
            .iter()
            .map(|line| line.to_str().expect("our cookies are text"))
            .collect()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.body))
    }

    /// The machine's word for what went wrong (RFC 9457 `type`, last part, or `code`).
    #[track_caller]
    pub fn code(&self) -> String {
        let json = self.json();
        let word = json
            .get("code")
            .or_else(|| json.get("error"))
            .or_else(|| json.get("type"));
        let word = word
            .and_then(serde_json::Value::as_str)
            .unwrap_or_else(|| panic!("no code in {json}"));
        word.rsplit(['/', ':']).next().unwrap_or(word).to_owned()
    }

    /// Fails with the whole answer unless it has this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{:?}\n{}", self.headers, self.body);
        self
    }

    /// Value of the hidden field that protects forms.
    pub fn form_token(&self) -> Option<String> {
        let at = self.body.find("name=\"form_token\"")?;
        let tag_start = self.body[..at].rfind('<')?;
        let tag = &self.body[tag_start..tag_start + self.body[tag_start..].find('>')?];
        Some(between(tag, "value=\"", "\"")?.to_owned())
    }

    /// Visible text and markup without the comments that mark dynamic parts.
    pub fn page(&self) -> String {
        let mut page = self.body.clone();
        while let Some(start) = page.find("<!") {
            let Some(length) = page[start..].find('>') else { break };
            page.replace_range(start..=start + length, "");
        }
        page.replace("&amp;", "&")
            .replace("&quot;", "\"")
            .replace("&#x27;", "'")
            .replace("&lt;", "<")
            .replace("&gt;", ">")
    }

    /// The text between two marks on the page.
    #[track_caller]
    pub fn between(&self, start: &str, end: &str) -> String {
        let page = self.page();
        between(&page, start, end)
            .unwrap_or_else(|| panic!("no {start} … {end} in {} {page}", self.status))
            .to_owned()
    }

    /// Every text between two marks on the page.
    pub fn all_between(&self, start: &str, end: &str) -> Vec<String> {
        let page = self.page();
        let mut rest = page.as_str();
        let mut found = Vec::new();
        while let Some(at) = rest.find(start) {
            rest = &rest[at + start.len()..];
            let Some(stop) = rest.find(end) else { break };
            found.push(rest[..stop].to_owned());
            rest = &rest[stop..];
        }
        found
    }
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let from = text.find(start)? + start.len();
    let length = text[from..].find(end)?;
    Some(&text[from..from + length])
}
