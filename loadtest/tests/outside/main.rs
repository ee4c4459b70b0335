//! Do clients that others wrote get along with the edge, and does it outlive those that mean harm?
//!
//! Each test starts the real `edge` beside this program (or in `WRENN_BIN_DIR`), with an agent of our
//! own behind it that answers as a guest would, so no machine is booted. The clients are programs of
//! the system and the Python scripts of `loadtest/clients`: what `make check` installs.

mod abuse;
mod acme;
mod browser;
mod curl;
mod edge;
mod floods;
mod guest;
mod python;
mod restarts;
mod tools;
