//! What a running agent answers: to the commands on a Unix socket.
