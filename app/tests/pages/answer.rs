//! An answer of the router, and what must be true of every page.

use axum::http::StatusCode;

use crate::TOKEN;

/// An answer of the router.
pub struct Answer {
    pub status: StatusCode,
    pub location: Option<String>,
    pub html: String,
}

impl Answer {
    pub fn has(&self, text: &str) -> &Self {
        let html = self.html.replace("<!>", "");
        assert!(html.contains(text), "{text:?} is missing in:\n{html}");
        self
    }

    pub fn lacks(&self, text: &str) -> &Self {
        assert!(!self.html.contains(text), "{text:?} is in:\n{}", self.html);
        self
    }

    pub fn count(&self, text: &str) -> usize {
        self.html.matches(text).count()
    }

    /// The page without tags and markers.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut inside = false;
        for letter in self.html.chars() {
            match letter {
                '<' => inside = true,
                '>' => inside = false,
                letter if !inside => text.push(letter),
                _ => {}
            }
        }
        text
    }

    pub fn says(&self, sentence: &str) -> &Self {
        assert!(
            self.text().contains(sentence),
            "{sentence:?} is missing in:\n{}",
            self.text()
        );
        self
    }
}

/// What must be true of every page.
pub fn is_well_made(path: &str, answer: &Answer) {
    let html = &answer.html;
    let start = html.to_lowercase();
    assert!(start.starts_with("<!doctype html>"), "{path}");
    assert_eq!(answer.count("<h1"), 1, "{path}: one h1 in\n{html}");
    assert_eq!(answer.count("<title>"), 1, "{path}: one title");
    assert_eq!(answer.count("<main"), 1, "{path}: one main");
    assert!(html.contains("lang=\"en\""), "{path}");
    for forbidden in [" style=\"", " onclick", " onsubmit", " oninput", "javascript:"] {
        assert!(!start.contains(forbidden), "{path}: {forbidden}");
    }
    let mut rest = html.as_str();
    while let Some(at) = rest.find("<script") {
        rest = &rest[at..];
        let tag = &rest[..rest.find('>').unwrap()];
        assert!(tag.contains("nonce=\""), "{path}: a script without nonce: {tag}");
        rest = &rest[7..];
    }
    for form in html.split("<form").skip(1) {
        let form = form.split("</form>").next().unwrap();
        let posts = form.contains("method=\"post\"");
        let carries = form.contains(&format!("name=\"form_token\" value=\"{TOKEN}\""));
        assert_eq!(
            posts, carries,
            "{path}: exactly the forms that post carry the token:\n{form}"
        );
    }
    for tag in html.split('<').filter(|tag| {
        ["input ", "select ", "textarea "]
            .iter()
            .any(|name| tag.starts_with(name))
    }) {
        if tag.contains("type=\"hidden\"") || tag.contains("type=\"checkbox\"") || tag.contains(" hidden") {
            continue;
        }
        let id = tag
            .split("id=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .unwrap_or_else(|| panic!("{path}: {tag}"));
        let labelled = html
            .split("<label ")
            .any(|label| label.split('>').next().unwrap().contains(&format!("for=\"{id}\"")));
        assert!(labelled, "{path}: no label for {id}");
        assert_eq!(answer.count(&format!(" id=\"{id}\"")), 1, "{path}: id {id} once");
    }
    for described in html.split("aria-describedby=\"").skip(1) {
        for id in described.split('"').next().unwrap().split(' ') {
            assert_eq!(answer.count(&format!(" id=\"{id}\"")), 1, "{path}: description {id}");
        }
    }
    assert_eq!(answer.count("<table"), answer.count("<thead"), "{path}");
    assert_eq!(answer.count("<table"), answer.count("<tbody"), "{path}");
}
