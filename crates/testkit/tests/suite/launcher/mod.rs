mod cluster;
mod guard;
mod sentinel;
mod single;
