//! The scripted peer, and the harness that runs one side against it.

use crate::memory;
use rblocksync::digest::{self, Digest, HashKind, ImageDigest, LeafSet};
use rblocksync::error::{Error, Kind, Result};
use rblocksync::fingerprint::Key;
use rblocksync::image::{Image, MemoryImage};
use rblocksync::range::{ByteRange, RangeSet};
use rblocksync::stop::Stop;
use rblocksync::sync::{
    run_delta_source, run_source, run_target, Compress, DeltaMode, DigestTable, Geometry, Meter,
    Params, Since, Summary,
};
use rblocksync::wire::{Entry, Extents, Frame, Hello, Link, Patch};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

pub const LEAF: usize = 4096;
pub const SEGMENT: usize = 1 << 20;
/// Longer than any limit that a test sets, shorter than the real limit of silence.
pub const LONG: Duration = Duration::from_secs(20);

/// Plays the other end by hand.
pub struct Peer {
    stream: UnixStream,
}

impl Peer {
    pub fn new(stream: UnixStream) -> Peer {
        stream.set_read_timeout(Some(LONG)).unwrap();
        Peer { stream }
    }

    /// Sends whatever bytes. Fails quietly: the other side may have had enough.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub fn send(&mut self, frame: Frame) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.send_bytes(&bytes);
    }

    /// The next frame but pings.
    pub fn receive(&mut self) -> Frame {
        loop {
            let mut head = [0; 4];
            self.stream.read_exact(&mut head).unwrap();
            let mut body = vec![0; u32::from_le_bytes(head) as usize];
            self.stream.read_exact(&mut body).unwrap();
            match Frame::decode(&body).unwrap() {
                Frame::Ping => {}
                frame => return frame,
            }
        }
    }

    /// Receives frames until `wanted` gives something for one.
    pub fn until<T>(&mut self, mut wanted: impl FnMut(Frame) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.receive()) {
                return found;
            }
        }
    }

    /// The error report that the other side sends when it has failed.
    pub fn report(&mut self) -> String {
        self.until(|frame| match frame {
            Frame::Error(json) => Some(String::from_utf8(json).unwrap()),
            _ => None,
        })
    }

    /// A proper handshake.
    pub fn hello(&mut self) {
        self.send(Frame::Hello(Hello::ours("peer")));
        let theirs = self.receive();
        assert!(matches!(theirs, Frame::Hello(_)), "{theirs:?}");
    }

    /// Nothing more will come from us.
    pub fn close(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Both).unwrap();
    }

    /// Nothing more will come from us, but we still take what comes.
    pub fn shut(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// As a source: lists all of an image of `segments` segments as data.
    pub fn list_all(&mut self, segments: u64) {
        self.send(Frame::Extents(extents(0, segments, &[(0, segments)])));
    }

    /// As a source: waits until the target has reported `count` segments.
    pub fn reports(&mut self, count: usize) -> Vec<Entry> {
        let mut all = Vec::new();
        self.until(|frame| {
            if let Frame::Segments(entries) = frame {
                all.extend(entries);
            }
            (all.len() >= count).then(|| std::mem::take(&mut all))
        })
    }
}

pub fn extents(start: u64, end: u64, runs: &[(u64, u64)]) -> Extents {
    Extents {
        start,
        end,
        runs: runs.to_vec(),
    }
}

pub fn params(segments: usize) -> Params {
    Params {
        geometry: Geometry::new((segments * SEGMENT) as u64, LEAF as u32).unwrap(),
        hash: HashKind::Blake3,
        dry_run: false,
        verify: false,
        bytes_per_s_max: None,
        compress: Compress::Off,
        threads: None,
        leaf_key: Key([7; 16]),
        map: false,
        first: 0,
        delta: None,
    }
}

/// An image of `segments` segments, every leaf of it filled with `byte`.
pub fn filled(segments: usize, byte: u8) -> Arc<MemoryImage> {
    let image = MemoryImage::new(segments * SEGMENT);
    image.write_at(&vec![byte; segments * SEGMENT], 0).unwrap();
    Arc::new(image)
}

/// The digest of a segment filled with `byte`.
pub fn segment_digest(byte: u8) -> Digest {
    digest::segment(HashKind::Blake3, &vec![byte; SEGMENT], LEAF).unwrap()
}

/// The digest of an image of these segments.
pub fn image_digest(segments: &[Option<Digest>]) -> Digest {
    let mut image = ImageDigest::new(HashKind::Blake3, LEAF as u32, SEGMENT as u32);
    for (i, digest) in segments.iter().enumerate() {
        image.add(i as u64, *digest);
    }
    image.finish((segments.len() * SEGMENT) as u64)
}

pub fn leaves(which: impl IntoIterator<Item = usize>) -> LeafSet {
    let mut set = LeafSet::default();
    which.into_iter().for_each(|i| set.insert(i));
    set
}

/// A correct patch that fills segment `segment` with `byte`.
pub fn fill_patch(segment: u64, byte: u8) -> Patch {
    Patch {
        segment,
        digest: Some(segment_digest(byte)),
        changed: leaves(0..SEGMENT / LEAF),
        zeroed: LeafSet::default(),
        data: vec![byte; SEGMENT].into(),
    }
}

/// Which side is under test, and with what.
pub struct Side {
    pub image: Arc<dyn Image>,
    pub params: Params,
    pub silence_max: Duration,
    pub stop: Stop,
    pub table: Option<DigestTable>,
}

impl Side {
    pub fn new(image: Arc<impl Image + 'static>, params: Params) -> Side {
        Side {
            image,
            params,
            silence_max: LONG * 10,
            stop: Stop::new(),
            table: None,
        }
    }

    /// Lets it know already what its image is: segments that are all full of `byte`.
    pub fn knowing(self, byte: u8) -> Side {
        let side = self.knowing_zeros(DeltaMode::Image);
        let table = side.table.as_ref().unwrap();
        for index in 0..side.params.geometry.segments() {
            table.put(index, &segment_digest(byte)).unwrap();
        }
        side
    }

    /// Lets it know that its image is zeros.
    pub fn knowing_zeros(mut self, mode: DeltaMode) -> Side {
        let Params { hash, geometry, .. } = self.params;
        let dir = std::env::temp_dir();
        let table = DigestTable::create_unnamed(&dir, hash, geometry, Uuid::nil()).unwrap();
        self.params.delta = Some(mode);
        self.table = Some(table);
        self
    }

    /// Lets it know no more of what changed than where.
    pub fn by_ranges(mut self) -> Side {
        self.params.delta = Some(DeltaMode::Ranges);
        self
    }

    /// Lets it give up on a peer that says nothing for `ms` milliseconds.
    pub fn impatient(mut self, ms: u64) -> Side {
        self.silence_max = Duration::from_millis(ms);
        self
    }

    /// Runs it as the target of a peer that plays the source.
    pub fn run_as_target(self, script: impl FnOnce(&mut Peer) + Send + 'static) -> Result<Summary> {
        self.run(run_target, script)
    }

    /// Runs it as the source of a peer that plays the target.
    pub fn run_as_source(self, script: impl FnOnce(&mut Peer) + Send + 'static) -> Result<Summary> {
        self.run(run_source, script)
    }

    /// Runs it as the source of what changed in these ranges since it was what it knows.
    pub fn run_as_source_of(
        self,
        changed: RangeSet,
        script: impl FnOnce(&mut Peer) + Send + 'static,
    ) -> Result<Summary> {
        self.run(
            move |image, params, link, meter, table| {
                let since = Since {
                    image: None,
                    changed: &changed,
                };
                run_delta_source(image, &since, params, link, meter, table.unwrap())
            },
            script,
        )
    }

    fn run(
        self,
        role: impl RunSide,
        script: impl FnOnce(&mut Peer) + Send + 'static,
    ) -> Result<Summary> {
        against(script, move |end| {
            let mut link = handshake(end, self.stop)?;
            link.reader.set_silence_max(self.silence_max);
            let table = self.table.as_ref();
            role(&*self.image, &self.params, &mut link, &Meter::new(), table)
        })
    }
}

/// [`run_source`], [`run_target`], or what is called like these.
pub trait RunSide:
    FnOnce(&dyn Image, &Params, &mut Link, &Meter, Option<&DigestTable>) -> Result<Summary>
    + Send
    + 'static
{
}

impl<T> RunSide for T where
    T: FnOnce(&dyn Image, &Params, &mut Link, &Meter, Option<&DigestTable>) -> Result<Summary>
        + Send
        + 'static
{
}

pub fn handshake(end: UnixStream, stop: Stop) -> Result<Link> {
    let input = end.try_clone().unwrap();
    Link::handshake(input.into(), end.into(), "test", "peer", stop)
}

/// Runs `body` on one end of a socket pair and `script` on the other, which stays open until `body` is
/// done. A body that takes too long fails the test.
pub fn against<T: Send + 'static>(
    script: impl FnOnce(&mut Peer) + Send + 'static,
    body: impl FnOnce(UnixStream) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    // Little room on the way: who does not read is soon noticed.
    rustix::net::sockopt::set_socket_send_buffer_size(&ours, 16 << 10).unwrap();
    let mut peer = Peer::new(theirs);
    let (ended, end) = channel();
    let began = Instant::now();
    std::thread::spawn(move || ended.send(body(ours)));
    let script = std::thread::spawn(move || {
        script(&mut peer);
        peer
    });
    let result = match end.recv_timeout(LONG) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => panic!("still running after {:?}", began.elapsed()),
        Err(RecvTimeoutError::Disconnected) => panic!("the side under test panicked"),
    };
    drop(script.join().expect("the script of the peer"));
    result
}

/// Runs `body`, of the test `name`, and fails if all of it takes more than `bytes_max` bytes at its peak. It
/// runs in a process of its own, where no other test's memory is counted.
pub fn within_memory(name: &str, bytes_max: usize, body: impl FnOnce()) {
    const ALONE: &str = "HOSTILE_PEER_ALONE";
    if std::env::var_os(ALONE).is_some() {
        let ((), peak) = memory::peak_of(body);
        assert!(
            peak <= bytes_max,
            "{peak} bytes, but at most {bytes_max} are allowed"
        );
        return;
    }
    let out = std::process::Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && said.contains("1 passed"),
        "{name} alone: {said}{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

/// The bytes of these frames, as they travel.
pub fn stream(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frames.iter().for_each(|frame| frame.encode(&mut bytes));
    bytes
}

/// The error must be of this kind and hold these words.
pub fn refused<T>(result: Result<T>, kind: Kind, words: &str) {
    let error = match result {
        Ok(_) => panic!("no error, but wanted {kind:?}: {words}"),
        Err(error) => error,
    };
    let text = error.to_string();
    assert!(
        error.kind() == kind && text.contains(words),
        "{:?}: {text}\nbut wanted {kind:?}: {words}",
        error.kind()
    );
}

/// A large image of which every byte is the same: one hole if that is zero, else all data.
pub struct Uniform {
    pub size: u64,
    pub byte: u8,
}

impl Image for Uniform {
    fn size(&self) -> u64 {
        self.size
    }
    fn read_at(&self, buf: &mut [u8], _: u64) -> Result<()> {
        buf.fill(self.byte);
        Ok(())
    }
    fn write_at(&self, _: &[u8], _: u64) -> Result<()> {
        Err(Error::new(Kind::Space, "it takes nothing"))
    }
    fn zero(&self, range: ByteRange) -> Result<()> {
        match self.byte {
            0 => Ok(()),
            _ => self.write_at(&[], range.start),
        }
    }
    fn next_data(&self, offset: u64) -> Result<Option<ByteRange>> {
        let data = self.byte != 0 && offset < self.size;
        Ok(data.then(|| ByteRange::new(offset, self.size)))
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
    fn check_unchanged(&self) -> Result<()> {
        Ok(())
    }
    fn read_from_medium(&self) -> Result<()> {
        Ok(())
    }
    fn name(&self) -> String {
        "uniform image".into()
    }
}
