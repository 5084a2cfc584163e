/*
 * `witan audit replay`: a request that an audit log has recorded, asked again of any coordinator of
 * the same model and numerics class. The auditor brings its body; the log brings settings, seed and
 * the HMACs of prompt and answer, which tell whether both are what they were, bit for bit.
 */
#ifndef WITAN_CLI_AUDIT_REPLAY_H
#define WITAN_CLI_AUDIT_REPLAY_H

/* argv from the id on. The exit code: 0 equal; 1 not, or it could not be found out; 2 usage. */
int audit_replay(int argc, char **argv);

#endif
