//! The executor of production: glommio, one per core.
