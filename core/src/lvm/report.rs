//! What `lvs` reports, parsed.
//!
//! Recorded from lvm2 2.03.16: every value is a JSON string, also numbers; what does not apply is "";
//! an inactive volume has no data_percent and an open state "unknown"; hidden volumes are left out.

use super::id::{LvId, OwnerTag, Tag};
use crate::error::{Error, Kind, Result};
use serde::Deserialize;

/// The columns [`parse`] needs, for `lvs -o`.
pub(super) const COLUMNS: &str =
    "vg_name,lv_name,lv_uuid,lv_size,lv_attr,segtype,pool_lv,thin_id,origin,\
     lv_tags,chunk_size,zero,lv_when_full,lv_metadata_size,data_percent,metadata_percent";

/// What a logical volume is made of, as far as it matters to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LvKind {
    /// A thin volume or a thin snapshot; the two are the same thing.
    Thin,
    /// A pool for thin volumes.
    ThinPool,
    /// A plain range of extents.
    Linear,
    /// Anything else: mirrors, caches, classic snapshots.
    Other,
}

/// A logical volume at the moment it was looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Lv {
    /// Its name.
    pub id: LvId,
    /// LVM's id, which stays when the volume is renamed.
    pub uuid: String,
    /// Size in bytes; a multiple of the group's extent size.
    pub size: u64,
    /// What it is.
    pub kind: LvKind,
    /// It has a device node that can be opened.
    pub active: bool,
    /// Somebody has the device open, or LVM cannot tell.
    pub open: bool,
    /// Not writable when active.
    pub read_only: bool,
    /// Activation must be forced (`-K`): so LVM creates thin snapshots.
    pub skip_activation: bool,
    /// The pool of a thin volume.
    pub pool: Option<LvId>,
    /// The number by which the pool's metadata knows a thin volume.
    pub thin_id: Option<u32>,
    /// What a snapshot was taken of, while that exists.
    pub origin: Option<LvId>,
    /// All tags.
    pub tags: Vec<String>,
    /// Share of a thin volume that is mapped, or of a pool that is used; known while active.
    pub data_percent: Option<f64>,
    pub(super) pool_row: PoolRow,
}

/// The columns only a pool has a use for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PoolRow {
    pub chunk_bytes: u64,
    pub zeroes_new: bool,
    pub errors_when_full: bool,
    pub metadata_bytes: u64,
    pub metadata_percent: Option<f64>,
}

impl Lv {
    /// It carries the mark of this owner.
    pub fn is_owned_by(&self, owner: &OwnerTag) -> bool {
        self.has_tag(owner.tag())
    }

    /// It carries this tag.
    pub fn has_tag(&self, tag: &Tag) -> bool {
        self.tags.iter().any(|t| t == tag.as_str())
    }
}

#[derive(Deserialize)]
struct Report {
    report: Vec<Section>,
}

#[derive(Deserialize)]
struct Section {
    #[serde(default)]
    lv: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    vg_name: String,
    lv_name: String,
    lv_uuid: String,
    lv_size: String,
    lv_attr: String,
    segtype: String,
    pool_lv: String,
    thin_id: String,
    origin: String,
    lv_tags: String,
    chunk_size: String,
    zero: String,
    lv_when_full: String,
    lv_metadata_size: String,
    data_percent: String,
    metadata_percent: String,
}

/// Reads the output of `lvs --reportformat json --units b --nosuffix -o COLUMNS`.
pub(super) fn parse(json: &[u8]) -> Result<Vec<Lv>> {
    let report: Report = serde_json::from_slice(json)
        .map_err(|e| Error::new(Kind::Tool, "cannot read what lvs printed").because(e))?;
    report
        .report
        .into_iter()
        .flat_map(|section| section.lv)
        .map(|row| {
            let name = format!("{}/{}", row.vg_name, row.lv_name);
            lv(row).map_err(|e| e.context(format!("lvs on {name:?}")))
        })
        .collect()
}

fn lv(row: Row) -> Result<Lv> {
    let id = LvId::new(row.vg_name, row.lv_name)?;
    let attr: Vec<char> = row.lv_attr.chars().collect();
    let &[kind, permissions, _, _, state, open, _, _, _, skip, ..] = attr.as_slice() else {
        return Err(unexpected("lv_attr", &row.lv_attr));
    };
    let sibling = |name: &str| match name {
        "" => Ok(None),
        _ => id.sibling(name).map(Some),
    };
    Ok(Lv {
        uuid: row.lv_uuid,
        size: number("lv_size", &row.lv_size)?,
        kind: match (kind, row.segtype.as_str()) {
            ('V', _) => LvKind::Thin,
            ('t', _) => LvKind::ThinPool,
            (_, "linear") => LvKind::Linear,
            _ => LvKind::Other,
        },
        // 'i' is a device with a table that LVM does not consider active, 'd' one without a table.
        active: !matches!(state, '-' | 'i' | 'd' | 'h'),
        open: open != '-',
        read_only: permissions != 'w',
        skip_activation: skip == 'k',
        pool: sibling(&row.pool_lv)?,
        thin_id: match row.thin_id.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| unexpected("thin_id", text))?),
        },
        origin: sibling(&row.origin)?,
        tags: row
            .lv_tags
            .split(',')
            .filter(|t| !t.is_empty())
            .map(str::to_owned)
            .collect(),
        data_percent: percent("data_percent", &row.data_percent)?,
        pool_row: PoolRow {
            chunk_bytes: number("chunk_size", &row.chunk_size)?,
            zeroes_new: row.zero == "zero",
            errors_when_full: row.lv_when_full == "error",
            metadata_bytes: match row.lv_metadata_size.as_str() {
                "" => 0,
                text => number("lv_metadata_size", text)?,
            },
            metadata_percent: percent("metadata_percent", &row.metadata_percent)?,
        },
        id,
    })
}

fn number(column: &str, text: &str) -> Result<u64> {
    text.parse().map_err(|_| unexpected(column, text))
}

fn percent(column: &str, text: &str) -> Result<Option<f64>> {
    match text {
        "" => Ok(None),
        _ => match text.parse::<f64>() {
            Ok(share) if (0.0..=100.0).contains(&share) => Ok(Some(share)),
            _ => Err(unexpected(column, text)),
        },
    }
}

fn unexpected(column: &str, text: &str) -> Error {
    Error::new(
        Kind::Tool,
        format!("lvs printed {text:?} as {column}, which is not understood"),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Recorded: an active pool, an inactive snapshot, an active open volume, a linear volume.
    const RECORDED: &str = include_str!("testdata/lvs.json");

    #[test]
    fn recorded_output() {
        let lvs = parse(RECORDED.as_bytes()).unwrap();
        let by_name = |name: &str| lvs.iter().find(|lv| lv.id.name() == name).unwrap();
        assert_eq!(lvs.len(), 4);

        let disk = by_name("vm-101-disk-0");
        assert_eq!(disk.id.to_string(), "pve/vm-101-disk-0");
        assert_eq!(disk.uuid, "LIpXj1-eVWj-M6Ix-p8HA-OGUz-DQ0b-KfpYRQ");
        assert_eq!((disk.size, disk.kind), (37_748_736, LvKind::Thin));
        assert_eq!(
            (disk.active, disk.open, disk.read_only),
            (true, true, false)
        );
        assert_eq!(disk.pool.as_ref().unwrap().to_string(), "pve/data");
        assert_eq!((disk.thin_id, disk.data_percent), (Some(1), Some(8.51)));
        assert_eq!(disk.tags, ["a.b+c", "rbs.owner=0b1c"]);
        assert_eq!(disk.origin, None);

        let snap = by_name("snap_vm-101-disk-0_rbsx");
        assert_eq!(
            (snap.active, snap.open, snap.read_only),
            (false, false, true)
        );
        assert!(snap.skip_activation);
        assert_eq!(snap.origin.as_ref(), Some(&disk.id));
        assert_eq!((snap.thin_id, snap.data_percent), (Some(2), None));

        let pool = by_name("data");
        assert_eq!((pool.kind, pool.thin_id), (LvKind::ThinPool, None));
        assert_eq!(pool.pool_row.chunk_bytes, 65536);
        assert!(pool.pool_row.zeroes_new && !pool.pool_row.errors_when_full);
        assert_eq!(pool.pool_row.metadata_percent, Some(10.35));

        assert_eq!(by_name("lin").kind, LvKind::Linear);
        assert_eq!(by_name("lin").pool, None);
    }

    #[test]
    fn nothing_found() {
        assert_eq!(parse(br#"{"report":[{"lv":[]}]}"#).unwrap(), []);
        assert_eq!(parse(br#"{"report":[{}]}"#).unwrap(), []);
    }

    #[test]
    fn a_value_that_makes_no_sense_is_an_error_that_names_it() {
        let cases = [
            (
                "\"lv_size\":\"37748736\"",
                "\"lv_size\":\"36.00m\"",
                "lv_size",
            ),
            ("\"lv_attr\":\"Vwi-aotz--\"", "\"lv_attr\":\"V\"", "lv_attr"),
            ("\"thin_id\":\"1\"", "\"thin_id\":\"-1\"", "thin_id"),
            (
                "\"data_percent\":\"8.51\"",
                "\"data_percent\":\"nan\"",
                "data_percent",
            ),
            (
                "\"lv_name\":\"vm-101-disk-0\"",
                "\"lv_name\":\"-f\"",
                "starts with a dash",
            ),
            ("\"segtype\":\"linear\", ", "", "missing field"),
        ];
        for (from, to, expected) in cases {
            let text = RECORDED.replacen(from, to, 1);
            assert_ne!(text, RECORDED, "{from}");
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    proptest! {
        #[test]
        fn junk_is_survived(junk: Vec<u8>, at in 0usize..4000, with in proptest::collection::vec(any::<u8>(), 0..8)) {
            let _ = parse(&junk);
            let mut damaged = RECORDED.as_bytes().to_vec();
            let at = at.min(damaged.len());
            damaged.splice(at..(at + with.len()).min(damaged.len()), with.iter().copied());
            let _ = parse(&damaged);
            let _ = parse(&damaged[..at]);
        }

        #[test]
        fn any_attributes_are_survived(attr in ".{0,12}", value in ".{0,12}") {
            let text = RECORDED
                .replace("Vwi-aotz--", &attr.replace(['"', '\\'], "?"))
                .replace("8.51", &value.replace(['"', '\\'], "?"));
            let _ = parse(text.as_bytes());
        }
    }
}
