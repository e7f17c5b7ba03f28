//! Links of a page.

use super::commands::Said;
use std::path::{Component, Path, PathBuf};
use tests::markdown::{anchor, page};

/// All targets of links and pictures.
pub fn links(text: &str) -> Vec<Said> {
    let mut links = Vec::new();
    for code in page(text).prose {
        let mut rest = code.text.as_str();
        while let Some((_, after)) = rest.split_once("](") {
            let Some((target, behind)) = after.split_once(')') else {
                break;
            };
            links.push(Said {
                line: code.line,
                text: target.to_owned(),
            });
            rest = behind;
        }
    }
    links
}

/// The file that a relative link leads to.
pub fn file_of(page: &Path, target: &str) -> Option<PathBuf> {
    let file = target.split('#').next().unwrap_or_default();
    if target.contains("://") {
        return None;
    }
    if file.is_empty() {
        return Some(page.to_path_buf());
    }
    let mut path = page.parent()?.to_path_buf();
    for part in Path::new(file).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            part => path.push(part),
        }
    }
    Some(path)
}

/// Says why a link is broken.
pub fn check(root: &Path, from: &Path, target: &str) -> Result<(), String> {
    let Some(file) = file_of(from, target) else {
        return match is_web_address(target) {
            true => Ok(()),
            false => Err(format!("{target} is no address")),
        };
    };
    if !file.starts_with(root) {
        return Err(format!("{target} leads out of the repository"));
    }
    if !file.exists() {
        return Err(format!("{target} does not exist"));
    }
    let Some((_, wanted)) = target.split_once('#') else {
        return Ok(());
    };
    let text = std::fs::read_to_string(&file).map_err(|e| format!("{target}: {e}"))?;
    let found = page(&text).headings.iter().any(|h| anchor(h) == wanted);
    match found {
        true => Ok(()),
        false => Err(format!("{target}: there is no such heading")),
    }
}

fn is_web_address(text: &str) -> bool {
    let rest = text
        .strip_prefix("https://")
        .or(text.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
        host.contains('.') && host.chars().all(plain) && !text.contains([' ', '<', '>', '"'])
    })
}

#[test]
fn broken_links_are_found() {
    let root = super::root();
    let from = root.join("docs/faq.md");
    for good in [
        "../README.md",
        "runbooks/README.md",
        "https://a.example/x#y",
        "#questions",
    ] {
        check(&root, &from, good).unwrap_or_else(|why| panic!("{good}: {why}"));
    }
    for bad in [
        "no.md",
        "../../x",
        "ftp://a.example",
        "https://a b",
        "#nothing",
    ] {
        check(&root, &from, bad).expect_err(bad);
    }
}
