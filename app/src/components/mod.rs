//! Parts that pages are put together from. Must not know: ports; everything comes in as data.

pub mod field;
pub mod form;
pub mod frame;
pub mod icons;
pub mod message;
pub mod session;
pub mod when;
