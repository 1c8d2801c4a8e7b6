//! Server-sent events, as the HTML Living Standard (§9.2.6) says they are to be read. Knows nothing of what they say.

/// A longer line is nobody's whom we follow.
const MOST_LINE_BYTES: usize = 64 * 1024;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// Its type; empty means `message`.
    pub(super) kind: String,
    /// Lines of data, joined by line feeds.
    pub(super) data: String,
}

/// What a line was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// Part of an event, or of nothing.
    Within,
    /// The empty line that completes an event.
    Last,
}

/// Puts events together out of the pieces that arrive.
#[derive(Debug, Default)]
pub(super) struct Reader {
    line: Vec<u8>,
    /// The last byte was a carriage return: a line feed after it belongs to the same end of line.
    after_return: bool,
    begun: bool,
    event: Event,
    has_data: bool,
}

impl Reader {
    /// The events that are complete with this piece. `None`: this is no such stream.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Option<Vec<Event>> {
        let mut events = Vec::new();
        for &byte in bytes {
            let ends = match byte {
                b'\n' if self.after_return => {
                    self.after_return = false;
                    continue;
                }
                b'\n' | b'\r' => true,
                _ => false,
            };
            self.after_return = byte == b'\r';
            if ends {
                let line = std::mem::take(&mut self.line);
                if self.take(&line)? == Line::Last {
                    events.push(std::mem::take(&mut self.event));
                }
            } else if self.line.len() < MOST_LINE_BYTES {
                self.line.push(byte);
            } else {
                return None;
            }
        }
        Some(events)
    }

    /// One line. `None`: this is no such stream.
    fn take(&mut self, line: &[u8]) -> Option<Line> {
        let mut line = std::str::from_utf8(line).ok()?;
        if !self.begun {
            self.begun = true;
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            if std::mem::take(&mut self.has_data) {
                return Some(Line::Last);
            }
            // Without data it is none.
            self.event = Event::default();
            return Some(Line::Within);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.kind),
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
                if self.event.data.len() > MOST_LINE_BYTES {
                    return None;
                }
                self.has_data = true;
            }
            // Comments, ids (they stand in the data, too), and fields of the future.
            _ => {}
        }
        Some(Line::Within)
    }
}
