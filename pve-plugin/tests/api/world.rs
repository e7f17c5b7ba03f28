//! A cluster of two nodes, as far as the API shows it: VMs, tasks, and what a token may do.

use super::schema::{Fault, Matched, Schema};
use serde_json::{json, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

pub const SECRET: &str = "11111111-2222-3333-4444-555555555555";
pub const TOKEN: &str = "sync@pve!test=11111111-2222-3333-4444-555555555555";
pub const DIGEST: &str = "0123456789abcdef0123456789abcdef01234567";
/// How often a task is asked for before it has ended.
const LOOKS: u32 = 2;

pub struct Request {
    pub method: String,
    /// From `/`, decoded.
    pub path: String,
    pub params: Vec<(String, String)>,
    /// Nothing for root on the node.
    pub token: Option<String>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub message: String,
    pub errors: BTreeMap<String, String>,
    pub data: Value,
}

impl Answer {
    fn data(data: Value) -> Answer {
        Answer {
            status: 200,
            message: "OK".into(),
            errors: BTreeMap::new(),
            data,
        }
    }

    fn refused(status: u16, message: impl Into<String>) -> Answer {
        Answer {
            status,
            message: message.into(),
            errors: BTreeMap::new(),
            data: Value::Null,
        }
    }
}

#[derive(Default)]
struct State {
    /// Requests that the schema knows: method and template.
    seen: BTreeSet<(String, String)>,
    /// Every request with its parameters, for tests that look at them.
    requests: Vec<String>,
    /// What Proxmox VE would not have understood.
    violations: Vec<String>,
    revoked: BTreeSet<String>,
    tasks: BTreeMap<String, (u32, String)>,
    next_task: u32,
}

pub struct World {
    schema: Schema,
    state: Mutex<State>,
}

impl World {
    pub fn new() -> World {
        World {
            schema: Schema::load(),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn revoke(&self, privilege: &str) {
        self.state().revoked.insert(privilege.to_owned());
    }

    pub fn seen(&self) -> BTreeSet<(String, String)> {
        self.state().seen.clone()
    }

    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    pub fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    pub fn handle(&self, request: &Request) -> Answer {
        self.state().requests.push(format!(
            "{} {} {:?}",
            request.method, request.path, request.params
        ));
        match request.token.as_deref() {
            None => {}
            Some("") => return Answer::refused(401, "No ticket"),
            Some(token) if token == format!("PVEAPIToken={TOKEN}") => {}
            Some(_) => return Answer::refused(401, "invalid token value!"),
        }
        let checked = self
            .schema
            .check(&request.method, &request.path, &request.params);
        let matched = match checked {
            Ok(matched) => matched,
            Err(fault) => {
                let shown = format!("{} {}: {fault:?}", request.method, request.path);
                self.state().violations.push(shown);
                return match fault {
                    Fault::NoSuchPath => Answer::refused(
                        501,
                        format!(
                            "Method '{} {}' not implemented",
                            request.method, request.path
                        ),
                    ),
                    Fault::Parameters(errors) => Answer {
                        errors,
                        ..Answer::refused(400, "Parameter verification failed.")
                    },
                };
            }
        };
        self.state()
            .seen
            .insert((request.method.clone(), matched.template.clone()));
        if let Some(refused) = self.not_permitted(request, &matched) {
            return refused;
        }
        self.answer(request, &matched)
    }

    fn not_permitted(&self, request: &Request, matched: &Matched) -> Option<Answer> {
        let vm = format!("/vms/{}", matched.blanks.get("vmid").map_or("0", |v| v));
        let template = matched.template.as_str();
        let (path, privilege) = match (request.method.as_str(), template) {
            (_, "/cluster/status" | "/cluster/ha/resources") => ("/".to_owned(), "Sys.Audit"),
            ("POST", t) if t.contains("/status/") => (vm, "VM.PowerMgmt"),
            ("POST", t) if t.contains("/agent/fsfreeze") => (vm, "VM.GuestAgent.FileSystemMgmt"),
            ("POST" | "DELETE", t) if t.ends_with("/qemu") || t.ends_with("{vmid}") => {
                (vm, "VM.Allocate")
            }
            ("GET", t) if t.contains("/qemu/{vmid}") => (vm, "VM.Audit"),
            _ => return None,
        };
        let lacking = request.token.is_some() && self.state().revoked.contains(privilege);
        lacking.then(|| {
            Answer::refused(
                403,
                format!("Permission check failed ({path}, {privilege})"),
            )
        })
    }

    fn answer(&self, request: &Request, matched: &Matched) -> Answer {
        let blank = |name: &str| matched.blanks.get(name).map_or("", |v| v.as_str());
        let (node, vmid) = (blank("node"), blank("vmid"));
        if matched.template.contains("/qemu/{vmid}") && !["101", "103"].contains(&vmid) {
            let file = format!("nodes/{node}/qemu-server/{vmid}.conf");
            return Answer::refused(500, format!("Configuration file '{file}' does not exist"));
        }
        let short = matched
            .template
            .replace("/nodes/{node}", "N")
            .replace("N/qemu/{vmid}", "V");
        let task = |kind: &str, end: &str| {
            let end = match vmid {
                "103" => "VM is locked (backup)",
                _ => end,
            };
            Answer::data(json!(self.begin(node, kind, vmid, end)))
        };
        match (request.method.as_str(), short.as_str()) {
            ("GET", "/version") => Answer::data(
                json!({"version": "9.1.7", "release": "9.1", "repoid": "0123456789abcdef"}),
            ),
            ("GET", "/cluster/resources") => Answer::data(guests()),
            ("GET", "/cluster/status") => Answer::data(json!([
                {"type": "cluster", "id": "cluster", "name": "home", "quorate": 1, "nodes": 2, "version": 4},
                {"type": "node", "id": "node/pve1", "name": "pve1", "local": 1, "online": 1, "ip": "10.0.0.1", "nodeid": 1},
                {"type": "node", "id": "node/pve2", "name": "pve2", "local": 0, "online": 1, "ip": "10.0.0.2", "nodeid": 2},
            ])),
            ("GET", "/cluster/nextid") => Answer::data(json!("105")),
            ("GET", "/cluster/ha/resources") => {
                Answer::data(json!([{"sid": "vm:104", "state": "started", "digest": "x"}]))
            }
            ("GET", "/cluster/replication") => Answer::data(json!([
                {"id": "104-0", "type": "local", "guest": 104, "jobnum": 0, "target": "pve2", "schedule": "*/15"},
            ])),
            ("GET", "/access/permissions") => Answer::data(json!({
                "/vms/101": {"VM.Audit": 1, "VM.PowerMgmt": 1, "VM.Config.Disk": 0},
            })),
            ("GET", "N/certificates/info") => Answer::data(json!([
                {"filename": "pve-ssl.pem", "fingerprint": vec!["AB"; 32].join(":"), "notafter": 1893456000,
                 "san": ["127.0.0.1", "pve1"], "subject": "/CN=pve1"},
            ])),
            ("GET", "N/storage") => Answer::data(json!([
                {"storage": "local-lvm", "type": "lvmthin", "content": "images,rootdir", "active": 1, "enabled": 1,
                 "shared": 0, "total": 1000000, "used": 400000, "avail": 600000, "used_fraction": 0.4},
                {"storage": "off", "type": "dir", "content": "iso", "active": 0, "enabled": 1},
            ])),
            ("GET", "N/storage/{storage}/status") => Answer::data(json!(
                {"type": "lvmthin", "content": "images", "active": 1, "enabled": 1, "total": "1000000", "used": 1, "avail": 999999}
            )),
            ("GET", "N/storage/{storage}/content/{volume}") => Answer::data(json!(
                {"path": "/var/lib/vz/images/101/vm-101-disk-0.qcow2", "size": 34359738368u64, "used": 1024, "format": "qcow2"}
            )),
            ("GET", "V/config") => Answer::data(json!({
                "digest": DIGEST, "name": "web", "cores": 2, "memory": "2048",
                "scsi0": "local:101/vm-101-disk-0.qcow2,size=32G",
            })),
            ("GET", "V/pending") => Answer::data(json!([
                {"key": "cores", "value": 2, "pending": 4}, {"key": "ide2", "value": "none,media=cdrom", "delete": 1},
            ])),
            ("GET", "V/status/current") => Answer::data(json!({
                "status": "running", "qmpstatus": "running", "vmid": 101, "agent": 1, "ha": {"managed": 0}, "pid": 4711,
                "running-machine": "pc-q35-9.0+pve0", "running-qemu": "9.0.2", "cpus": 2,
            })),
            ("GET", "V/snapshot") => Answer::data(json!([
                {"name": "before", "snaptime": 1700000000, "description": "", "vmstate": 0},
                {"name": "current", "parent": "before", "digest": DIGEST, "running": 1, "description": "You are here!"},
            ])),
            ("POST", "V/status/start") => task("qmstart", "OK"),
            ("POST", "V/status/stop") => task("qmstop", "OK"),
            ("POST", "V/status/shutdown") => task("qmshutdown", "WARNINGS: 2"),
            ("POST", "V/status/suspend") => task("qmpause", "OK"),
            ("POST", "V/status/resume") => task("qmresume", "OK"),
            ("DELETE", "V") => task("qmdestroy", "OK"),
            ("POST", "V/config") => match request.params.iter().any(|(n, _)| n == "scsi1") {
                true => task("qmconfig", "OK"),
                false => Answer::data(Value::Null),
            },
            ("POST", "N/qemu") => {
                let vmid = request.params.iter().find(|(n, _)| n == "vmid").unwrap();
                Answer::data(json!(self.begin(node, "qmcreate", &vmid.1, "OK")))
            }
            ("POST", "V/agent/ping") => Answer::data(json!({"result": {}})),
            ("POST", "V/agent/fsfreeze-freeze" | "V/agent/fsfreeze-thaw") => {
                Answer::data(json!({"result": 3}))
            }
            ("POST", "V/agent/fsfreeze-status") => Answer::data(json!({"result": "frozen"})),
            ("GET", "N/tasks/{upid}/status") => self.task(blank("upid")),
            ("GET", "N/tasks/{upid}/log") => Answer::data(json!([
                {"n": 1, "t": "trying to acquire lock..."}, {"n": 2, "t": "TASK ERROR: no"},
            ])),
            other => panic!("nobody plays {other:?}"),
        }
    }

    fn begin(&self, node: &str, kind: &str, object: &str, end: &str) -> String {
        let mut state = self.state();
        state.next_task += 1;
        let upid = format!(
            "UPID:{node}:0000{:04X}:00BC614E:66F2A3B4:{kind}:{object}:sync@pve!test:",
            state.next_task
        );
        state.tasks.insert(upid.clone(), (LOOKS, end.to_owned()));
        upid
    }

    fn task(&self, upid: &str) -> Answer {
        let mut state = self.state();
        let Some((looks, end)) = state.tasks.get_mut(upid) else {
            return Answer::refused(500, format!("no such task '{upid}'"));
        };
        let mut answer = json!({"upid": upid, "status": "running", "type": "x", "id": "101"});
        match looks {
            0 => {
                answer["status"] = json!("stopped");
                answer["exitstatus"] = json!(end);
            }
            _ => *looks -= 1,
        }
        Answer::data(answer)
    }
}

fn guests() -> Value {
    json!([
        {"type": "qemu", "id": "qemu/101", "vmid": 101, "node": "pve1", "status": "running", "name": "web",
         "tags": "a;b", "pool": "prod", "template": 0, "cpu": 0.1},
        {"type": "lxc", "id": "lxc/102", "vmid": 102, "node": "pve2", "status": "stopped", "name": "ct"},
        {"type": "qemu", "id": "qemu/103", "vmid": "103", "node": "pve1", "status": "stopped", "lock": "backup"},
        {"type": "qemu", "id": "qemu/104", "vmid": 104, "node": "pve2", "status": "running", "hastate": "started", "template": ""},
    ])
}
