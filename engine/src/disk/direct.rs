//! The disk of production: glommio's `DmaFile`, past the page cache.
