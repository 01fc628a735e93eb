//! Aligned memory: filled once, then frozen and shared. The only unsafe code of the engine.
//!
//! A [`Buffer`] is filled from front to back by its one owner; the bytes below its length never
//! change again, so [`Slice`]s of them may be read while the rest is still being filled.

use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;

use glommio::io::DmaBuffer;

/// Alignment of every buffer's first byte, in bytes.
pub const BUFFER_ALIGNMENT_BYTES: usize = 4096;

struct Memory {
    dma: Rc<DmaBuffer>,
    /// First byte of the allocation that `dma` owns; taken before `dma` was shared.
    start: *mut u8,
    /// Bytes `0..len` are initialised and immutable; those behind belong to the `Buffer`.
    len: Cell<usize>,
}

/// Fixed-capacity, aligned memory that grows by appending. Its owner appends; readers hold slices.
pub struct Buffer {
    memory: Rc<Memory>,
    /// Copies of what the memory knows of itself: an append reads them without following the pointer.
    start: *mut u8,
    len: usize,
    capacity: usize,
}

impl Buffer {
    /// Memory for `capacity` bytes (at least 1), from the heap, empty.
    pub fn with_capacity(capacity: usize) -> Self {
        let mut dma = glommio::allocate_dma_buffer_global(capacity);
        let start = dma.as_mut_ptr();
        let memory = Rc::new(Memory { dma: Rc::new(dma), start, len: Cell::new(0) });
        Self { memory, start, len: 0, capacity }
    }

    /// A full buffer holding `bytes` and zeros up to the next multiple of `block_bytes`.
    pub fn padded_copy(bytes: &[u8], block_bytes: usize) -> Self {
        let mut buffer =
            Self::with_capacity(bytes.len().next_multiple_of(block_bytes).max(block_bytes));
        buffer.push(bytes);
        buffer.fill_with_zeros();
        buffer
    }

    /// Bytes appended so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was appended yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that fit in all.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes that still fit.
    pub fn room(&self) -> usize {
        self.capacity - self.len
    }

    /// Appends `bytes`, which must fit.
    pub fn push(&mut self, bytes: &[u8]) {
        assert!(
            bytes.len() <= self.room(),
            "push {} B into {} B of room",
            bytes.len(),
            self.room()
        );
        // SAFETY: `start` points to `capacity` bytes owned by `dma`, and `len <= capacity`.
        #[expect(unsafe_code, reason = "appending behind shared slices")]
        let target = unsafe { self.start.add(self.len) };
        // SAFETY: `len + bytes.len() <= capacity` was asserted; bytes at and above `len` are seen by nobody
        // else (slices end at or below `len`, only full buffers are frozen), and `bytes` cannot overlap them.
        #[expect(unsafe_code, reason = "appending behind shared slices")]
        unsafe {
            target.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        self.len += bytes.len();
        self.memory.len.set(self.len);
    }

    /// Fills what is left with zeros.
    pub fn fill_with_zeros(&mut self) {
        const ZEROS: [u8; 4096] = [0; 4096];
        while self.room() > 0 {
            let n = self.room().min(ZEROS.len());
            self.push(ZEROS.get(..n).unwrap_or(&ZEROS));
        }
    }

    /// A shared view of the bytes `from..end`, all below [`Buffer::len`].
    pub fn slice(&self, from: usize, end: usize) -> Slice {
        assert!(from <= end, "slice {from}..{end}");
        assert!(end <= self.len(), "slice {from}..{end} of {} B", self.len());
        Slice { owner: Rc::clone(&self.memory) as Rc<dyn SliceOwner>, from, end }
    }

    /// The bytes appended so far.
    pub fn bytes(&self) -> &[u8] {
        self.memory.filled()
    }

    /// Hands out the whole buffer for writing; it must be full.
    pub fn freeze(&self) -> FrozenBuffer {
        assert!(self.room() == 0, "freeze with {} B of room", self.room());
        FrozenBuffer { memory: Rc::clone(&self.memory) }
    }
}

impl Memory {
    fn filled(&self) -> &[u8] {
        // SAFETY: bytes `0..len` are initialised, never written again, and live as long as `dma`.
        #[expect(unsafe_code, reason = "reading below the append position")]
        unsafe {
            std::slice::from_raw_parts(self.start, self.len.get())
        }
    }
}

/// A full buffer on its way to the disk: immutable, cheap to clone.
#[derive(Clone)]
pub struct FrozenBuffer {
    memory: Rc<Memory>,
}

impl FrozenBuffer {
    /// The glommio buffer behind it, for the direct disk.
    pub fn dma(&self) -> Rc<DmaBuffer> {
        Rc::clone(&self.memory.dma)
    }
}

impl Deref for FrozenBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.memory.filled()
    }
}

/// Whatever keeps the bytes of a [`Slice`] alive and unchanged.
pub trait SliceOwner {
    /// All bytes that slices may refer to; the same on every call, or longer.
    fn owned_bytes(&self) -> &[u8];
}

impl SliceOwner for Memory {
    fn owned_bytes(&self) -> &[u8] {
        self.filled()
    }
}

impl SliceOwner for Vec<u8> {
    fn owned_bytes(&self) -> &[u8] {
        self
    }
}

impl SliceOwner for glommio::io::ReadResult {
    fn owned_bytes(&self) -> &[u8] {
        self
    }
}

/// A shared, immutable run of bytes: a view of a buffer, of a read, or of plain memory.
#[derive(Clone)]
pub struct Slice {
    owner: Rc<dyn SliceOwner>,
    from: usize,
    end: usize,
}

impl Slice {
    /// A view of all that `owner` holds now.
    pub fn of(owner: Rc<dyn SliceOwner>) -> Self {
        let end = owner.owned_bytes().len();
        Self { owner, from: 0, end }
    }

    /// The part `from..end` of this view, relative to its start.
    #[must_use]
    pub fn slice(&self, from: usize, end: usize) -> Self {
        assert!(from <= end, "slice {from}..{end}");
        assert!(self.from + end <= self.end, "slice {from}..{end} of {} B", self.len());
        Self { owner: Rc::clone(&self.owner), from: self.from + from, end: self.from + end }
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.owner
            .owned_bytes()
            .get(self.from..self.end)
            .expect("bounds were checked when the slice was made")
    }
}

impl From<Vec<u8>> for Slice {
    fn from(bytes: Vec<u8>) -> Self {
        Self::of(Rc::new(bytes))
    }
}

impl std::fmt::Debug for Slice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slice({} B)", self.len())
    }
}
