//! What of Markdown the pages use: blocks of code, code in a line, headings.

use std::time::Instant;

/// A line of code and where it stands.
pub struct CodeLine {
    /// Number of the line in the page, from 1.
    pub line: usize,
    /// Without the block's indentation.
    pub text: String,
}

/// A block of code.
pub struct Block {
    /// What stands behind the fence; nothing for a block that is indented.
    pub info: String,
    /// What is in it.
    pub lines: Vec<CodeLine>,
}

/// A page, taken apart.
#[derive(Default)]
pub struct Page {
    /// Blocks of code, in their order.
    pub blocks: Vec<Block>,
    /// Code within text, which may go over the end of a line, and the line it begins in.
    pub inline: Vec<CodeLine>,
    /// Text without code, line by line.
    pub prose: Vec<CodeLine>,
    /// Texts of the headings.
    pub headings: Vec<String>,
}

/// Takes a page apart.
pub fn page(text: &str) -> Page {
    let mut page = Page::default();
    let mut fence: Option<Block> = None;
    // A paragraph, and the line it begins in.
    let mut paragraph: (usize, String) = (0, String::new());
    let mut indented: Option<Block> = None;
    let mut blank_before = true;
    for (at, raw) in text.lines().enumerate() {
        let line = at + 1;
        if let Some(mut block) = fence.take() {
            match raw.trim_start().starts_with("```") {
                true => page.blocks.push(block),
                false => {
                    let text = raw.to_owned();
                    block.lines.push(CodeLine { line, text });
                    fence = Some(block);
                }
            }
            continue;
        }
        if let Some(info) = raw.trim_start().strip_prefix("```") {
            end_paragraph(&mut page, &mut paragraph);
            page.blocks.extend(indented.take());
            fence = Some(Block {
                info: info.trim().to_owned(),
                lines: Vec::new(),
            });
            continue;
        }
        let code = raw
            .strip_prefix("    ")
            .filter(|_| blank_before || indented.is_some());
        if let Some(code) = code {
            end_paragraph(&mut page, &mut paragraph);
            let block = indented.get_or_insert_with(|| Block {
                info: String::new(),
                lines: Vec::new(),
            });
            block.lines.push(CodeLine {
                line,
                text: code.to_owned(),
            });
            continue;
        }
        if raw.trim().is_empty() {
            end_paragraph(&mut page, &mut paragraph);
            blank_before = true;
            continue;
        }
        page.blocks.extend(indented.take());
        blank_before = false;
        if let Some(heading) = raw.strip_prefix('#') {
            end_paragraph(&mut page, &mut paragraph);
            page.headings
                .push(heading.trim_start_matches('#').trim().to_owned());
        }
        if paragraph.1.is_empty() {
            paragraph.0 = line;
        }
        paragraph.1.push_str(raw);
        paragraph.1.push('\n');
    }
    page.blocks.extend(indented);
    end_paragraph(&mut page, &mut paragraph);
    page
}

/// Parts a paragraph into code and the rest.
fn end_paragraph(page: &mut Page, paragraph: &mut (usize, String)) {
    let (mut line, text) = std::mem::take(paragraph);
    let mut prose = String::new();
    let mut rest = text.as_str();
    let mut at = line;
    while let Some((before, after)) = rest.split_once('`') {
        prose.push_str(before);
        line += before.matches('\n').count();
        let Some((code, behind)) = after.split_once('`') else {
            break;
        };
        page.inline.push(CodeLine {
            line,
            text: code.split_whitespace().collect::<Vec<_>>().join(" "),
        });
        line += code.matches('\n').count();
        // What lies between must not become one word.
        prose.push_str("``");
        prose.push_str(&"\n".repeat(code.matches('\n').count()));
        rest = behind;
    }
    prose.push_str(rest);
    for text in prose.lines() {
        page.prose.push(CodeLine {
            line: at,
            text: text.to_owned(),
        });
        at += 1;
    }
}

/// The anchor of a heading, as GitHub makes it.
pub fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}

/// What is typed in a block of code: the lines with a prompt, without it. A line that ends in a backslash goes on.
pub fn typed(block: &Block) -> Vec<CodeLine> {
    let mut typed: Vec<CodeLine> = Vec::new();
    let mut goes_on = false;
    for CodeLine { line, text } in &block.lines {
        let prompt = ["$ ", "# "].iter().find_map(|p| text.strip_prefix(p));
        let text = match (goes_on, prompt) {
            (true, _) => text.trim(),
            (false, Some(text)) => text,
            (false, None) => continue,
        };
        let cut = text.strip_suffix('\\').map(str::trim_end);
        match typed.last_mut().filter(|_| goes_on) {
            Some(last) => last.text = format!("{} {}", last.text, cut.unwrap_or(text)),
            None => typed.push(CodeLine {
                line: *line,
                text: cut.unwrap_or(text).to_owned(),
            }),
        }
        goes_on = cut.is_some();
    }
    typed
}

/// The commands of a page that are to be carried out, and on which host: those of blocks whose fence says `run=HOST`, or one
/// of these other words. Several hosts are parted by commas.
fn steps(text: &str, words: &[&str]) -> Vec<(String, String)> {
    let mut steps = Vec::new();
    for block in page(text).blocks {
        let hosts = block.info.split(' ').find_map(|word| {
            let (key, hosts) = word.split_once('=')?;
            words.contains(&key).then(|| hosts.to_owned())
        });
        for host in hosts.iter().flat_map(|hosts| hosts.split(',')) {
            let commands = typed(&block).into_iter().map(|line| line.text);
            steps.extend(commands.map(|command| (host.to_owned(), command)));
        }
    }
    steps
}

/// Has the steps of a page carried out in their order, and tells how long each took. `run` gets the host that a step is for,
/// as one of `hosts`, which stand for the page's `host1` and `host2`, and the command with their names.
///
/// # Errors
/// Those of `run`.
pub fn carry_out<E>(
    page: &str,
    hosts: [&str; 2],
    run: impl FnMut(&str, &str) -> Result<String, E>,
) -> Result<(), E> {
    carry_out_steps(steps(page, &["run"]), hosts, run)
}

/// The same from the installation on, for hosts that have nothing of the product yet: the steps whose fence says `first=HOST`
/// are carried out as well.
///
/// # Errors
/// Those of `run`.
pub fn carry_out_from_installation<E>(
    page: &str,
    hosts: [&str; 2],
    run: impl FnMut(&str, &str) -> Result<String, E>,
) -> Result<(), E> {
    carry_out_steps(steps(page, &["first", "run"]), hosts, run)
}

fn carry_out_steps<E>(
    steps: Vec<(String, String)>,
    hosts: [&str; 2],
    mut run: impl FnMut(&str, &str) -> Result<String, E>,
) -> Result<(), E> {
    assert!(steps.len() >= 5, "the page has {} steps", steps.len());
    let [first, second] = hosts;
    for (host, command) in steps {
        let host = match host.as_str() {
            "host1" => first,
            "host2" => second,
            other => panic!("there is no {other}"),
        };
        let command = command.replace("host1", first).replace("host2", second);
        let began = Instant::now();
        let said = run(host, &command)?;
        let took = began.elapsed().as_secs_f64();
        println!("{host}# {command}   [{took:.1} s]\n{said}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_taken_apart() {
        let text = "# A `b`, c\n\nText `one\ntwo` and `three`\n    not code\n\n    code\n\n    more\n\n```sh run=x\nfenced\n```\n";
        let page = page(text);
        let code = |lines: &[CodeLine]| {
            lines
                .iter()
                .map(|l| (l.line, l.text.clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            code(&page.inline),
            [(1, "b".into()), (3, "one two".into()), (4, "three".into())]
        );
        assert_eq!(page.blocks.len(), 2);
        assert_eq!(
            code(&page.blocks[0].lines),
            [(7, "code".into()), (9, "more".into())]
        );
        assert_eq!(page.blocks[1].info, "sh run=x");
        assert_eq!(code(&page.blocks[1].lines), [(12, "fenced".into())]);
        assert_eq!(anchor(&page.headings[0]), "a-b-c");
    }

    #[test]
    fn what_is_typed_is_told_from_what_is_said() {
        let text = "```console run=a\n# one \\\n   two\nsaid\n# three\n```\n\n    # four\n\n```console first=a,b\n# five\n```\n";
        let on = |host: &str, command: &str| (host.to_owned(), command.to_owned());
        let run = [on("a", "one two"), on("a", "three")];
        assert_eq!(steps(text, &["run"]), run);
        let first = [on("a", "five"), on("b", "five")];
        assert_eq!(steps(text, &["first", "run"]), [run, first].concat());
    }
}
