//! x
use app as _;
