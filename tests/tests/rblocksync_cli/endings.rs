//! Runs that end early: signals, killed processes, cut connections, sources that change. Each ends in
//! seconds, says so, and running again converges.

use super::*;
use std::io::{BufRead, BufReader};
use std::process::Child;
use std::time::{Duration, Instant};
use tests::sshd::{eventually, processes};

/// Longest time in which a run must end once its end was caused.
const SOON: Duration = Duration::from_secs(15);

/// A slow push of `src`, running until something ends it. Returns when data flows.
fn slow_push(w: &World, src: &Path, dst: &Path) -> Child {
    let mut child = command(&[
        "--json",
        "--bwlimit",
        "1M",
        &w.config(),
        src.to_str().unwrap(),
        &w.remote(dst),
    ])
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let flowing = lines.any(|line| {
        let event: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        event["sent"].as_u64().is_some_and(|sent| sent > 0)
    });
    assert!(flowing, "the sync ended before it was to be ended");
    // Read to the end, so that the program does not wait for us.
    std::thread::spawn(move || lines.count());
    child
}

/// A source of 24 MiB, all different from the destination's.
fn pair(w: &World) -> (PathBuf, PathBuf) {
    let (src, dst) = (w.path("src.img"), w.path("dst.img"));
    fs::write(&src, vec![0x33; 24 * MIB as usize]).unwrap();
    fs::write(&dst, vec![0x44; 24 * MIB as usize]).unwrap();
    (src, dst)
}

fn ends(child: Child) -> Run {
    let began = Instant::now();
    let result: Run = child.wait_with_output().unwrap().into();
    assert!(began.elapsed() < SOON, "took {:?} to end", began.elapsed());
    result
}

fn agents(dir: &Path) -> Vec<u32> {
    let dir = dir.to_string_lossy().into_owned();
    processes()
        .into_iter()
        .filter(|(pid, p)| {
            p.name == "rblocksync"
                && p.args.contains("agent")
                && open_files(*pid).iter().any(|f| f.starts_with(&dir))
        })
        .map(|(pid, _)| pid)
        .collect()
}

fn open_files(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter_map(|e| Some(fs::read_link(e.path()).ok()?.to_string_lossy().into_owned()))
        .collect()
}

fn kill(signal: &str, pid: u32) {
    done(
        Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(pid.to_string()),
    );
}

#[test]
fn signals_end_a_run_and_the_next_one_converges() {
    let w = World::new();
    let (src, dst) = pair(&w);
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let child = slow_push(&w, &src, &dst);
        kill(signal, child.id());
        ends(child).fails(code, &["stopped by signal"]);
        eventually("the agent is gone", || agents(w.dir.path()).is_empty());
    }
    run(&[&w.config(), src.to_str().unwrap(), &w.remote(&dst)]).ok();
    same(&src, &dst);
}

#[test]
fn a_killed_agent_is_reported() {
    let w = World::new();
    let (src, dst) = pair(&w);
    let child = slow_push(&w, &src, &dst);
    for pid in agents(w.dir.path()) {
        kill("KILL", pid);
    }
    ends(child).fails(1, &["agent"]);
}

#[test]
fn a_cut_connection_is_reported() {
    let w = World::new();
    let (src, dst) = pair(&w);
    let child = slow_push(&w, &src, &dst);
    w.sshd.kill_sessions();
    ends(child).fails(1, &[HOST]);
    eventually("the agent is gone", || agents(w.dir.path()).is_empty());
}

#[test]
fn a_killed_driver_takes_its_agent_with_it() {
    let w = World::new();
    let (src, dst) = pair(&w);
    let mut child = slow_push(&w, &src, &dst);
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the agent is gone", || agents(w.dir.path()).is_empty());
    run(&[&w.config(), src.to_str().unwrap(), &w.remote(&dst)]).ok();
    same(&src, &dst);
}

#[test]
fn a_second_run_on_the_same_destination_is_refused() {
    let w = World::new();
    let (src, dst) = pair(&w);
    let first = slow_push(&w, &src, &dst);
    run(&[&w.config(), src.to_str().unwrap(), &w.remote(&dst)]).fails(3, &["in use"]);
    run(&[&src, &dst]).fails(3, &["in use"]);
    kill("TERM", first.id());
    ends(first).fails(143, &[]);
}

#[test]
fn a_source_that_changes_its_size_is_an_error() {
    let w = World::new();
    let (src, dst) = pair(&w);
    let child = slow_push(&w, &src, &dst);
    File::options()
        .write(true)
        .open(&src)
        .unwrap()
        .set_len(MIB)
        .unwrap();
    let result: Run = child.wait_with_output().unwrap().into();
    // Whether it shows first at a read or at the end depends on how far the reading was.
    result.fails(1, &["src.img"]);
}
