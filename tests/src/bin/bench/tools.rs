//! The tools: each a script that makes DST, on HOST, equal to SRC. `ssh` there has the bench's
//! configuration; DST is a path of this machine as well, for those that only read both.

use crate::ends::installed;
use crate::scenario::{Before, Scenario};

pub const RBLOCKSYNC: &str = "rblocksync";
pub const RSYNC: &str = "rsync";
pub const TAR: &str = "tar";
pub const QEMU_IMG: &str = "qemu-img";
pub const B3SUM: &str = "b3sum";

/// How a tool goes about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// It sends what differs.
    Syncs,
    /// rblocksync again, only where several streams are looked at.
    Streams,
    /// It sends everything.
    Copies,
    /// It reads both files and compares or hashes them: what any comparison has to pay.
    Reads,
    /// The same, but it ends at the first difference.
    Compares,
}

/// A tool.
#[derive(Clone, Debug)]
pub struct Tool {
    pub name: String,
    /// Programs that must be installed.
    pub needs: Vec<String>,
    pub way: Way,
    /// It reads holes, or zeroes them piece by piece, so that a huge sparse image takes it minutes or hours.
    pub pays_for_holes: bool,
    pub script: String,
}

impl Tool {
    fn new(name: &str, needs: &[&str], way: Way, pays_for_holes: bool, script: &str) -> Tool {
        Tool {
            name: name.to_owned(),
            needs: needs.iter().map(|&n| n.to_owned()).collect(),
            way,
            pays_for_holes,
            script: script.to_owned(),
        }
    }

    /// A program that it needs and that is not there.
    pub fn missing(&self) -> Option<&str> {
        let mut needs = self.needs.iter().map(String::as_str);
        needs.find(|name| installed(name).is_none())
    }

    /// Whether it writes the destination.
    pub fn writes(&self) -> bool {
        matches!(self.way, Way::Syncs | Way::Streams | Way::Copies)
    }

    /// Whether it can take part. At a long round trip, copying everything shows the bandwidth and no more.
    pub fn fits(&self, scenario: &Scenario) -> bool {
        let by_way = match self.way {
            Way::Syncs => true,
            Way::Streams => scenario.name == "h",
            Way::Copies => !scenario.both_ways || scenario.shape.size == 4096,
            Way::Reads => scenario.before != Before::Nothing && !scenario.both_ways,
            Way::Compares => scenario.before == Before::Same && !scenario.both_ways,
        };
        by_way && !(self.pays_for_holes && scenario.is_huge())
    }
}

/// All of them, and those that the environment names: RBLOCKSYNC3, a path, and BENCH_TOOLS, lines of
/// `name: script`.
pub fn all() -> Vec<Tool> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut tools = vec![
        Tool::new(
            RBLOCKSYNC,
            &[],
            Way::Syncs,
            false,
            "exec \"$RBLOCKSYNC\" -q --truncate \"$SRC\" \"$HOST:$DST\"",
        ),
        Tool::new(
            "stored",
            &[],
            Way::Streams,
            false,
            "exec \"$RBLOCKSYNC\" -q --truncate --compress off \"$SRC\" \"$HOST:$DST\"",
        ),
        Tool::new(
            "stored, 1 stream",
            &[],
            Way::Streams,
            false,
            "exec \"$RBLOCKSYNC\" -q --truncate --compress off --streams 1 \"$SRC\" \"$HOST:$DST\"",
        ),
        // It would leave a file of the same size and time alone without looking into it.
        Tool::new(
            RSYNC,
            &["rsync"],
            Way::Syncs,
            true,
            "exec rsync -I --inplace \"$SRC\" \"$HOST:$DST\"",
        ),
        Tool::new(TAR, &["tar"], Way::Copies, false, TAR_SCRIPT),
        Tool::new(QEMU_IMG, &["qemu-nbd"], Way::Copies, true, NBD_SCRIPT),
        Tool::new(
            "dd",
            &["dd"],
            Way::Copies,
            true,
            "dd if=\"$SRC\" bs=1M status=none | ssh \"$HOST\" \"dd of=$DST bs=1M conv=notrunc,sparse status=none\"",
        ),
        Tool::new(
            B3SUM,
            &["b3sum"],
            Way::Reads,
            true,
            &format!("exec b3sum --num-threads {threads} \"$SRC\" \"$DST\""),
        ),
        Tool::new("cmp", &["cmp"], Way::Compares, true, "exec cmp \"$SRC\" \"$DST\""),
    ];
    if let Ok(path) = std::env::var("RBLOCKSYNC3") {
        tools.push(from_line(&format!(
            "rblocksync3: touch \"$DST\"; exec python3 {path} --truncate \"$SRC\" \"$HOST:$DST\""
        )));
    }
    let lines = std::env::var("BENCH_TOOLS").unwrap_or_default();
    tools.extend(
        lines
            .lines()
            .filter(|l| !l.trim().is_empty())
            .map(from_line),
    );
    tools
}

fn from_line(line: &str) -> Tool {
    let (name, script) = line.split_once(':').unwrap_or((line, line));
    Tool::new(name.trim(), &[], Way::Syncs, true, script.trim())
}

const TAR_SCRIPT: &str = r#"
tar -C "${SRC%/*}" -S -cf - "${SRC##*/}" |
    ssh "$HOST" "tar -C ${DST%/*} -S -xf - --transform s/.*/${DST##*/}/"
"#;

/// The server ends with its first client. It punches what it is told to zero, and what arrives as zeros.
const NBD_SCRIPT: &str = r#"
set -e
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
size=$(stat -c %s "$SRC")
zero=
[ -e "$DST" ] || zero=--target-is-zero
ssh -o ExitOnForwardFailure=yes -L "$dir/here:$dir/there" "$HOST" \
    "truncate -s $size $DST && exec qemu-nbd -f raw --discard=unmap --detect-zeroes=unmap -k $dir/there $DST" &
while ! [ -S "$dir/there" ]; do
    kill -0 $!
    sleep 0.01
done
qemu-img convert -n $zero -f raw -O raw "$SRC" "nbd+unix:///?socket=$dir/here"
wait $!
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{ALL, START_UP};

    fn names(scenario: &Scenario) -> Vec<String> {
        let all = all().into_iter();
        all.filter(|t| t.fits(scenario)).map(|t| t.name).collect()
    }

    #[test]
    fn each_tool_is_where_it_can_be_and_says_something() {
        let [a, b, c, _, e, f, ..] = &ALL;
        assert_eq!(names(a), ["rblocksync", "rsync", "tar", "qemu-img", "dd"]);
        assert_eq!(names(b).last().map(String::as_str), Some("cmp"));
        assert_eq!(names(c).last().map(String::as_str), Some("b3sum"));
        assert_eq!(names(e), ["rblocksync", "rsync"]);
        assert_eq!(names(f), ["rblocksync", "tar"]);
        assert_eq!(names(&START_UP).len(), 5);
    }

    #[test]
    fn a_line_names_a_tool() {
        let tool = from_line("other: run \"$SRC\" \"$HOST:$DST\"");
        assert_eq!((tool.name.as_str(), tool.way), ("other", Way::Syncs));
        assert_eq!(tool.script, "run \"$SRC\" \"$HOST:$DST\"");
    }
}
