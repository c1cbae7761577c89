//! One connection, as a state machine over messages: what is passed on, what is held back, where in its
//! transaction it is.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Buf as _, BytesMut};

use super::{Armed, Delivery, Place, Reached, Shared, Stop};

/// Part of the first message: `application_name`, NUL, its value, NUL.
const APPLICATION: &[u8] = b"application_name\0";

/// CommandComplete, and ReadyForQuery outside a transaction.
const COMMITTED: &[u8] = b"C\x00\x00\x00\x0bCOMMIT\0Z\x00\x00\x00\x05I";

/// Where the connection is.
enum Phase {
    /// Nothing was sent yet: the next message has no tag.
    New,
    /// Everything passes.
    Open,
    /// A BEGIN is held back until it is known what it begins.
    Beginning,
    /// The statement was passed on. `sync` counts its answer's end.
    Asked { stop: Stop, sync: u64 },
    /// The place was reached.
    Stopped(Stop),
}

/// The connection.
pub struct Link {
    shared: Arc<Shared>,
    application: String,
    phase: Phase,
    /// Prepared statements by name.
    statements: HashMap<String, String>,
    /// What the transaction has sent.
    sent: Vec<String>,
    /// Ends of answers asked for, and seen: a simple query or a Sync each has one ReadyForQuery.
    syncs: u64,
    readies: u64,
    held: BytesMut,
    /// Tag of the answer that is waited for.
    tag: String,
    reached: Option<Reached>,
    is_reached: bool,
    has_lied: bool,
}

impl Link {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            application: String::new(),
            phase: Phase::New,
            statements: HashMap::new(),
            sent: Vec::new(),
            syncs: 0,
            readies: 0,
            held: BytesMut::new(),
            tag: String::new(),
            reached: None,
            is_reached: false,
            has_lied: false,
        }
    }

    /// Takes whole messages of the server off `bytes`; answers what is to be passed on.
    pub fn ask(&mut self, bytes: &mut BytesMut) -> BytesMut {
        let mut passed = BytesMut::new();
        loop {
            let header = usize::from(!matches!(self.phase, Phase::New));
            let Some(message) = take(bytes, header) else {
                return passed;
            };
            self.ask_one(&message, &mut passed);
        }
    }

    fn ask_one(&mut self, message: &[u8], passed: &mut BytesMut) {
        if matches!(self.phase, Phase::New) {
            self.application = application(message);
            // The start-up's own answer ends with a ReadyForQuery as well.
            self.syncs = 1;
            self.phase = Phase::Open;
            passed.extend_from_slice(message);
            return;
        }
        let statement = self.statement(message);
        match self.phase {
            Phase::Stopped(_) => return self.held.extend_from_slice(message),
            Phase::Asked {
                stop: Stop::Unanswered,
                sync,
            } if self.syncs >= sync => return self.held.extend_from_slice(message),
            Phase::Beginning => self.phase = Phase::Open,
            _ => {}
        }
        if let Some(statement) = statement {
            if statement == "BEGIN" {
                self.sent.clear();
                if self.is_armed(Stop::Begin) {
                    self.phase = Phase::Beginning;
                    return self.held.extend_from_slice(message);
                }
            }
            let stop = self.reach(&statement);
            self.sent.push(statement);
            match stop {
                Some(stop @ (Stop::Unanswered | Stop::Answered)) => {
                    let sync = self.syncs + 1;
                    self.phase = Phase::Asked { stop, sync };
                }
                Some(stop) => {
                    self.phase = Phase::Stopped(stop);
                    self.is_reached = stop != Stop::Forged;
                    if stop == Stop::Late {
                        self.shared.late.send_replace(Delivery::Held);
                    }
                    return self.held.extend_from_slice(message);
                }
                None => {}
            }
        }
        if !self.held.is_empty() {
            // A BEGIN that began something else.
            self.syncs += 1;
            passed.extend_from_slice(&self.held.split());
        }
        if matches!(message.first(), Some(b'Q' | b'S')) {
            self.syncs += 1;
        }
        passed.extend_from_slice(message);
    }

    /// Takes whole messages of PostgreSQL off `bytes`; answers what is to be passed on.
    pub fn answer(&mut self, bytes: &mut BytesMut) -> BytesMut {
        let mut passed = BytesMut::new();
        while let Some(message) = take(bytes, 1) {
            let kind = message.first().copied();
            let mut is_withheld = matches!(self.phase, Phase::Stopped(Stop::Unanswered));
            if let Phase::Asked { stop, sync } = self.phase
                && self.readies + 1 >= sync
            {
                is_withheld = stop == Stop::Unanswered;
                if kind == Some(b'C') {
                    self.tag = tag(&message);
                }
                if kind == Some(b'Z') {
                    self.is_reached = true;
                    self.phase = match stop {
                        Stop::Unanswered => Phase::Stopped(stop),
                        _ => Phase::Open,
                    };
                }
            }
            if kind == Some(b'Z') {
                self.readies += 1;
            }
            if !is_withheld {
                passed.extend_from_slice(&message);
            }
        }
        passed
    }

    /// The lie, once, behind the answers to what was sent before.
    pub fn forged(&mut self) -> Option<&'static [u8]> {
        let is_forged = matches!(self.phase, Phase::Stopped(Stop::Forged));
        if !is_forged || self.has_lied || self.readies < self.syncs {
            return None;
        }
        self.has_lied = true;
        self.is_reached = true;
        Some(COMMITTED)
    }

    /// Tells that the place is reached, once everything before it has been passed on.
    pub fn tell(&mut self) {
        if std::mem::take(&mut self.is_reached)
            && let Some(reached) = self.reached.take()
        {
            reached(&self.tag);
        }
    }

    /// What is still to arrive although its sender is dead.
    pub fn into_late(self) -> Option<BytesMut> {
        matches!(self.phase, Phase::Stopped(Stop::Late)).then_some(self.held)
    }

    /// The text of a simple query or of the statement that is bound; remembers what is prepared.
    fn statement(&mut self, message: &[u8]) -> Option<String> {
        let mut body = message.get(5..).unwrap_or_default();
        match message.first()? {
            b'Q' => Some(text(&mut body)),
            b'P' => {
                let name = text(&mut body);
                self.statements.insert(name, text(&mut body));
                None
            }
            b'B' => {
                let _portal = text(&mut body);
                Some(self.statements[&text(&mut body)].clone())
            }
            _ => None,
        }
    }

    fn is_armed(&self, stop: Stop) -> bool {
        let armed = self.shared.armed.lock().unwrap();
        let is_mine = |place: &Place| place.application == self.application && place.stop == stop;
        armed.as_ref().is_some_and(|armed| is_mine(&armed.place))
    }

    /// Whether to stop at this statement, and how.
    fn reach(&mut self, statement: &str) -> Option<Stop> {
        let mut guard = self.shared.armed.lock().unwrap();
        let armed = guard.as_mut()?;
        let Place {
            application,
            behind,
            statement: wanted,
            stop,
        } = armed.place;
        let is_behind = behind.is_empty() || self.sent.iter().any(|sent| sent.contains(behind));
        if application != self.application || !statement.contains(wanted) || !is_behind {
            return None;
        }
        // Its BEGIN went out before the place was armed.
        if stop == Stop::Begin && self.held.is_empty() {
            return None;
        }
        if armed.skip > 0 {
            armed.skip -= 1;
            return None;
        }
        let Armed { reached, .. } = guard.take()?;
        self.reached = Some(reached);
        Some(stop)
    }
}

/// A whole message: its kind (`header` bytes of it), its length, which counts itself, and its body.
fn take(bytes: &mut BytesMut, header: usize) -> Option<BytesMut> {
    let length = bytes.get(header..header + 4)?;
    let length = u32::from_be_bytes(length.try_into().unwrap());
    let whole = header + usize::try_from(length).unwrap();
    (bytes.len() >= whole).then(|| bytes.split_to(whole))
}

/// Text up to a NUL.
fn text(body: &mut &[u8]) -> String {
    let end = body.iter().position(|byte| *byte == 0).unwrap();
    let text = String::from_utf8(body[..end].to_vec()).unwrap();
    body.advance(end + 1);
    text
}

fn application(first: &[u8]) -> String {
    let found = first
        .windows(APPLICATION.len())
        .position(|window| window == APPLICATION);
    found.map_or_else(String::new, |at| {
        text(&mut &first[at + APPLICATION.len()..])
    })
}

/// The tag of the last CommandComplete in these messages.
pub fn tag(answer: &[u8]) -> String {
    let mut rest = BytesMut::from(answer);
    let mut tag = String::new();
    while let Some(message) = take(&mut rest, 1) {
        if message.first() == Some(&b'C') {
            tag = text(&mut &message[5..]);
        }
    }
    tag
}
