//! A guest agent that obeys, refuses, or hangs.

use serde_json::{json, Value};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

#[derive(Clone, Copy, PartialEq)]
pub enum Freeze {
    Works,
    Refused,
    /// Answers only when the next request has come in.
    TooSlow,
}

#[derive(Default)]
struct State {
    frozen: bool,
    commands: Vec<String>,
}

pub struct FakeAgent(Arc<Mutex<State>>);

impl FakeAgent {
    pub fn listen(path: &Path, freeze: Freeze) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(&mut BufReader::new(stream.unwrap()), &shared, freeze);
            }
        });
        FakeAgent(state)
    }

    pub fn frozen(&self) -> bool {
        self.0.lock().unwrap().frozen
    }

    pub fn set_frozen(&self) {
        self.0.lock().unwrap().frozen = true;
    }

    /// All commands so far, but those that only look.
    pub fn commands(&self) -> Vec<String> {
        let state = self.0.lock().unwrap();
        let acts = |c: &&String| c.ends_with("freeze") || c.ends_with("thaw");
        state.commands.iter().filter(acts).cloned().collect()
    }
}

fn serve(peer: &mut BufReader<UnixStream>, state: &Mutex<State>, freeze: Freeze) {
    let mut owed = None;
    let mut line = Vec::new();
    while peer.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        let start = line.iter().position(|b| *b == b'{').unwrap();
        let request: Value = serde_json::from_slice(&line[start..]).unwrap();
        line.clear();
        let command = request["execute"].as_str().unwrap().to_owned();
        let mut state = state.lock().unwrap();
        state.commands.push(command.clone());
        let mut sentinel: &[u8] = b"";
        let reply = match command.as_str() {
            "guest-sync-delimited" => {
                sentinel = b"\xff";
                json!({"return": request["arguments"]["id"]})
            }
            "guest-fsfreeze-status" if state.frozen => json!({"return": "frozen"}),
            "guest-fsfreeze-status" => json!({"return": "thawed"}),
            "guest-fsfreeze-freeze" if freeze == Freeze::Refused => {
                json!({"error": {"class": "GenericError", "desc": "no freezing here"}})
            }
            "guest-fsfreeze-freeze" => {
                state.frozen = true;
                json!({"return": 2})
            }
            "guest-fsfreeze-thaw" => {
                state.frozen = false;
                json!({"return": 2})
            }
            _ => json!({"return": {}}),
        };
        if command == "guest-fsfreeze-freeze" && freeze == Freeze::TooSlow {
            owed = Some(reply);
            continue;
        }
        let mut bytes = Vec::new();
        if let Some(late) = owed.take() {
            bytes.extend_from_slice(format!("{late}\n").as_bytes());
        }
        bytes.extend_from_slice(sentinel);
        bytes.extend_from_slice(format!("{reply}\n").as_bytes());
        if peer.get_mut().write_all(&bytes).is_err() {
            return;
        }
    }
}
