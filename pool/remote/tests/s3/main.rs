//! Does what was published on one host restore on another? Against a real S3 server, and against
//! one that misbehaves.

mod crash;
mod damage;
mod faults;
mod figures;
mod restore;
mod support;
mod upkeep;
