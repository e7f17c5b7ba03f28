//! What to do now: for each problem a plain sentence, the commands to run, and where the runbook goes on.

use super::facts::{Facts, Replication};
use super::health::{states, State};
use super::stores::Store;
use super::words::{clip, name, shell, span, TEXT_MAX};
use crate::journal::Side;
use crate::replica::POOL_PERCENT_MAX;
use crate::runbook::Runbook as Page;

/// From here on somebody should think of a pool's growth: a sync is refused at [`POOL_PERCENT_MAX`].
const STORE_PERCENT_SOON: f64 = 85.0;

/// A page of docs/runbooks and one of its headings.
pub(super) type Runbook = (&'static str, &'static str);

pub(super) const SOURCE_DEAD: Runbook = Page::SourceHostDead.page();
pub(super) const TARGET_DEAD: Runbook = Page::TargetHostDead.page();
pub(super) const POOL_FULL: Runbook = Page::PoolFull.page();
pub(super) const SPLIT_BRAIN: Runbook = Page::SplitBrain.page();
pub(super) const WRONG_VMID: Runbook = Page::WrongVmid.page();
pub(super) const DAMAGED: Runbook = Page::ReplicaDamaged.page();
pub(super) const BOTH_BACK: Runbook = Page::BothBack.page();

/// Something that somebody has to do something about.
pub(super) struct Problem {
    /// Of what kind it is.
    pub state: State,
    /// It is about a store, for which the state's own word does not fit.
    pub is_store: bool,
    /// What it is about.
    pub title: String,
    /// What is the matter, in one or two sentences.
    pub text: String,
    /// Where to type, and what.
    pub commands: Vec<(String, String)>,
    /// Where to read on.
    pub runbook: Runbook,
}

/// All problems, the worst first.
pub(super) fn problems(facts: &Facts) -> Vec<Problem> {
    let found = &facts.found;
    let of_replications = found.replications.iter().filter_map(|r| problem(r, facts));
    let of_stores = found.stores.iter().filter_map(|s| of_store(s, facts));
    let mut problems: Vec<Problem> = of_replications.chain(of_stores).collect();
    problems.sort_by_key(|p| p.state);
    problems
}

/// "VM 101 web01 to host2".
pub(super) fn title(replication: &Replication) -> String {
    let status = &replication.status;
    let way = match status.side {
        Side::Source => "to",
        Side::Target => "from",
    };
    let mut title = format!("VM {} ", name(&status.vm));
    if !status.name.is_empty() {
        title.push_str(&name(&status.name));
        title.push(' ');
    }
    title + way + " " + &name(&status.peer)
}

fn problem(replication: &Replication, facts: &Facts) -> Option<Problem> {
    let states = states(replication, facts);
    let state = *states.first().filter(|s| s.is_problem())?;
    let texts: Vec<String> = states.iter().map(|s| say(*s, replication, facts)).collect();
    let error = last_error(replication).unwrap_or_default();
    Some(Problem {
        state,
        is_store: false,
        title: title(replication),
        text: texts.join(" "),
        commands: commands(state, &states, replication, facts),
        runbook: runbook(state, replication.status.side, &error),
    })
}

fn last_error(replication: &Replication) -> Option<String> {
    replication.status.last.as_ref()?.error.clone()
}

fn say(state: State, replication: &Replication, facts: &Facts) -> String {
    let status = &replication.status;
    let peer = name(&status.peer);
    let age = span(status.age_s(facts.now).unwrap_or(0).max(0).unsigned_abs());
    match state {
        State::Held => "Which side may run this VM is not known. Start it on neither side before that is decided.".into(),
        State::Never => match status.side {
            Side::Source => format!("{peer} has no generation of it yet."),
            Side::Target => "There is no generation of it here yet.".into(),
        },
        State::Late => {
            let limit = span(replication.rpo_s.unwrap_or(0));
            format!("The newest generation is {age} old; the limit is {limit}.")
        }
        State::Clock => "The newest generation is of the future: a clock was set back.".into(),
        State::Damaged => {
            let damage = status.damage().unwrap_or_default();
            format!("By the last verification, {}.", clip(&damage, TEXT_MAX))
        }
        State::Failed => {
            let error = last_error(replication).unwrap_or_default();
            format!("The last run failed: {}.", clip(&error, TEXT_MAX))
        }
        State::CutOff => {
            let step = status.last.as_ref().map_or("", |run| run.state.as_str());
            format!("The last run was cut off in its step {}.", name(step))
        }
        State::Running => "A run goes on now.".into(),
        State::Ok | State::Over => String::new(),
    }
}

fn commands(
    state: State,
    states: &[State],
    replication: &Replication,
    facts: &Facts,
) -> Vec<(String, String)> {
    let status = &replication.status;
    let program = facts.program;
    let (here, there) = (name(&facts.host), name(&status.peer));
    let (vm, there_vm) = match status.side {
        Side::Source => (shell(&status.vm), shell(&status.vm)),
        Side::Target => (shell(&status.vm), shell(&replication.source_vm)),
    };
    let peer = shell(&status.peer);
    let on = |host: &str, command: String| (host.to_owned(), command);
    match (state, status.side) {
        (State::Held, _) => vec![
            on(&here, format!("{program} status {vm}")),
            on(&there, format!("{program} status {there_vm}")),
        ],
        (State::Clock, _) => vec![
            on(&here, "timedatectl".into()),
            on(&there, "timedatectl".into()),
        ],
        // While a run goes on, another one is refused.
        (_, Side::Source) if states.contains(&State::Running) => {
            vec![on(&here, format!("{program} status {vm}"))]
        }
        (State::Damaged, Side::Source) => {
            vec![on(
                &here,
                format!("{program} verify {vm} --to {peer} --repair"),
            )]
        }
        (_, Side::Source) => {
            let mut commands = Vec::new();
            if states.contains(&State::CutOff) {
                commands.push(on(&here, format!("{program} doctor")));
            }
            commands.push(on(&here, format!("{program} vm {vm} --to {peer}")));
            commands
        }
        (State::Damaged, Side::Target) => vec![
            on(&here, format!("{program} verify {vm}")),
            on(
                &there,
                format!(
                    "{program} verify {there_vm} --to {} --repair",
                    shell(&facts.host)
                ),
            ),
        ],
        (State::Failed | State::CutOff, Side::Target) => vec![
            on(&here, format!("{program} doctor")),
            on(&there, format!("{program} status {there_vm}")),
        ],
        (_, Side::Target) => vec![on(&there, format!("{program} status {there_vm}"))],
    }
}

/// The journal keeps the text of an error only, so its words have to do. Where they say nothing, the other host is looked
/// at first: that is what most failures are about.
fn runbook(state: State, side: Side, error: &str) -> Runbook {
    let has = |words: &[&str]| words.iter().any(|w| error.contains(w));
    match (state, side) {
        (State::Held, _) => SPLIT_BRAIN,
        (State::Clock, _) => BOTH_BACK,
        (State::Damaged, _) => DAMAGED,
        _ if has(&["epoch", "taken over"]) => SPLIT_BRAIN,
        _ if has(&[
            "nearly full",
            "out of data space",
            "No space left",
            "no room",
        ]) =>
        {
            POOL_FULL
        }
        _ if has(&["not made for this replica", "not a replica"]) => WRONG_VMID,
        (_, Side::Source) => TARGET_DEAD,
        (_, Side::Target) => SOURCE_DEAD,
    }
}

fn of_store(store: &Store, facts: &Facts) -> Option<Problem> {
    let percent = store.percent().filter(|p| *p >= STORE_PERCENT_SOON)?;
    let is_data = store.data_percent == Some(percent);
    let what = if is_data {
        "full"
    } else {
        "full in its metadata"
    };
    let (state, then) = match percent >= POOL_PERCENT_MAX && store.kind == "thin pool" {
        true => (State::Late, "No sync starts before there is room."),
        false => (State::Failed, "Syncs end before it is full, and fail then."),
    };
    let see = match store.kind {
        "thin pool" => format!(
            "lvs -a -o+data_percent,metadata_percent {}",
            shell(&store.name)
        ),
        _ => format!("df -h {}", shell(&store.name)),
    };
    Some(Problem {
        state,
        is_store: true,
        title: format!("The {} {}", store.kind, clip(&store.name, 120)),
        text: format!("It is {percent:.0} % {what}. {then}"),
        commands: vec![(name(&facts.host), see)],
        runbook: POOL_FULL,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Kind};
    use crate::lvm::{LvId, Pool, PoolMode, PoolStatus};
    use crate::replica::{Role, Standing};

    fn runbook_of(error: &Error) -> Runbook {
        runbook(State::Failed, Side::Source, &error.message())
    }

    /// The words that are looked for are those that errors have.
    #[test]
    #[allow(clippy::unwrap_used)]
    fn errors_lead_to_their_runbook() {
        let status = PoolStatus {
            mode: PoolMode::ReadWrite,
            needs_check: false,
            held_root: None,
            data_chunks_used: 99,
            data_chunks_total: 100,
            metadata_blocks_used: 1,
            metadata_blocks_total: 100,
        };
        let mut pool = Pool {
            id: "pve/data".to_owned().try_into().unwrap(),
            size: 100 << 16,
            metadata_size: 100 << 12,
            data_percent: Some(99.0),
            metadata_percent: Some(1.0),
            chunk_bytes: 1 << 16,
            zeroes_new: true,
            errors_when_full: true,
            status: Some(status),
        };
        let _: &LvId = &pool.id;
        let full = pool.spare_bytes(95.0).unwrap_err();
        assert_eq!(runbook_of(&full), POOL_FULL);
        pool.status.as_mut().unwrap().mode = PoolMode::OutOfData;
        assert_eq!(runbook_of(&pool.check_healthy().unwrap_err()), POOL_FULL);
        let no_space = std::io::Error::from_raw_os_error(28);
        assert_eq!(
            runbook_of(&Error::io("cannot write x", no_space)),
            POOL_FULL
        );
        let replica = Standing {
            epoch: 3,
            ..Standing::replica()
        };
        let older = replica.receiving("101", 2).unwrap_err();
        assert_eq!(runbook_of(&older), SPLIT_BRAIN);
        let retired = Standing {
            role: Role::Retired,
            epoch: 2,
        };
        assert_eq!(
            runbook_of(&retired.check_sends("101").unwrap_err()),
            SPLIT_BRAIN
        );
        let gone = Error::new(Kind::Remote, "cannot connect to host2");
        assert_eq!(runbook_of(&gone), TARGET_DEAD);
    }
}
