//! Volume groups.

use super::id::check_vg;
use crate::cmd::{Cmd, Tool};
use crate::error::{Error, Kind, Result};
use serde::Deserialize;

#[derive(Deserialize)]
struct Report {
    report: Vec<Section>,
}

#[derive(Deserialize)]
struct Section {
    #[serde(default)]
    vg: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    vg_free: String,
}

/// Bytes of a group that no volume has. Fails with [`Kind::NotFound`] if there is no such group.
pub fn free_bytes(vg: &str) -> Result<u64> {
    check_vg(vg)?;
    let out = Cmd::new(Tool::Vgs)
        .args(["--reportformat", "json", "--units", "b", "--nosuffix"])
        .args(["-o", "vg_free"])
        .arg(vg)
        .run()?;
    parse(&out.stdout).map_err(|e| e.context(format!("vgs on {vg}")))
}

fn parse(json: &[u8]) -> Result<u64> {
    let report: Report = serde_json::from_slice(json)
        .map_err(|e| Error::new(Kind::Tool, "cannot read what vgs printed").because(e))?;
    let mut rows = report.report.into_iter().flat_map(|section| section.vg);
    let free = rows.next().and_then(|row| row.vg_free.parse().ok());
    free.ok_or_else(|| Error::new(Kind::Tool, "vgs does not tell what is free"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn free_space_is_read_or_refused() {
        let printed = r#"{"report": [{"vg": [{"vg_free":"17175674880"}]}]}"#;
        assert_eq!(parse(printed.as_bytes()).unwrap(), 17_175_674_880);
        for bad in [
            r#"{"report": [{"vg": []}]}"#,
            r#"{"report": [{"vg": [{"vg_free":"16.00g"}]}]}"#,
            r#"{"report": [{"vg": [{}]}]}"#,
            "",
        ] {
            assert_eq!(
                parse(bad.as_bytes()).unwrap_err().kind(),
                Kind::Tool,
                "{bad}"
            );
        }
    }
}
