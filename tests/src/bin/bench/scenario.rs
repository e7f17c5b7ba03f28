//! What is measured: the images, and what the destination is at first.

pub const MIB: u64 = 1 << 20;
/// The largest file that ext4 allows with blocks of 4 KiB is 4 KiB less.
const TIB_16: u64 = 16 << 40;

/// What the destination is before the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Before {
    /// There is none.
    Nothing,
    /// Equal to the source.
    Same,
    /// The source before 1 % of its 4 KiB blocks were rewritten.
    Older,
}

/// An image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    pub size: u64,
    pub data: u64,
    /// Number of stretches that the data lies in, as far from each other as they can.
    pub stretches: u64,
}

/// One scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub text: &'static str,
    pub shape: Shape,
    pub before: Before,
    /// The same data in an image without holes is measured too.
    pub beside_alone: bool,
    /// It is measured over loopback and through the relay.
    pub both_ways: bool,
}

impl Scenario {
    /// An image whose holes alone would keep many a tool busy for minutes or hours.
    pub fn is_huge(&self) -> bool {
        self.shape.size > 1 << 40
    }
}

const PLAIN: Scenario = Scenario {
    name: "",
    text: "",
    shape: Shape {
        size: 2048 * MIB,
        data: 600 * MIB,
        stretches: 30,
    },
    before: Before::Same,
    beside_alone: false,
    both_ways: false,
};

/// Start-up: it is measured before the others and taken off them.
pub const START_UP: Scenario = Scenario {
    name: "start-up",
    text: "a file of 4 KiB, nothing changed: connecting and no more",
    shape: Shape {
        size: 4096,
        data: 4096,
        stretches: 1,
    },
    both_ways: true,
    ..PLAIN
};

/// All others, in order.
pub const ALL: [Scenario; 8] = [
    Scenario {
        name: "a",
        text: "first copy of 600 MiB in a sparse file of 2 GiB",
        before: Before::Nothing,
        ..PLAIN
    },
    Scenario {
        name: "b",
        text: "the same, nothing changed",
        ..PLAIN
    },
    Scenario {
        name: "c",
        text: "the same, 1 % of its 4 KiB blocks rewritten here and there",
        before: Before::Older,
        ..PLAIN
    },
    Scenario {
        name: "d",
        text: "8 GiB with 200 MiB of data, nothing changed",
        shape: Shape {
            size: 8192 * MIB,
            data: 200 * MIB,
            stretches: 20,
        },
        ..PLAIN
    },
    Scenario {
        name: "e",
        text: "256 MiB with 1 % rewritten, over loopback and at 20 ms RTT",
        shape: Shape {
            size: 256 * MIB,
            data: 256 * MIB,
            stretches: 1,
        },
        before: Before::Older,
        both_ways: true,
        ..PLAIN
    },
    Scenario {
        name: "f",
        text: "16 TiB with 1 GiB of data, nothing changed",
        shape: Shape {
            size: TIB_16,
            data: 1024 * MIB,
            stretches: 64,
        },
        beside_alone: true,
        ..PLAIN
    },
    Scenario {
        name: "g",
        text: "4 GiB without a hole, nothing changed",
        shape: Shape {
            size: 4096 * MIB,
            data: 4096 * MIB,
            stretches: 1,
        },
        ..PLAIN
    },
    Scenario {
        name: "h",
        text: "first copy of 1 GiB, over loopback and at 20 ms RTT",
        shape: Shape {
            size: 1024 * MIB,
            data: 1024 * MIB,
            stretches: 1,
        },
        before: Before::Nothing,
        both_ways: true,
        ..PLAIN
    },
];
