/*
 * Certificates of the cluster: made by `witan pki`, and by `witan serve` for itself. Two roots that
 * have nothing to do with each other: the cluster's (coordinator <-> ranks) and the doors' (what
 * clients see). EC P-256, SHA-256.
 *
 * A cluster certificate says who may do what:
 *   coordinator: DNS name "coordinator.witan" (ranks demand it, whatever host they dial) and URI
 *                "urn:witan:coordinator" (coordinators demand it of those that dial them)
 *   worker:      URI "urn:witan:worker:GROUP:RANK:REGION"; each may be "*", REGION may be empty
 * so a rank's certificate can never stand for a coordinator, nor one group's for another's.
 */
#ifndef WITAN_PROTO_PKI_H
#define WITAN_PROTO_PKI_H

#include "base/error.h"

#include <stdint.h>

#define PKI_COORDINATOR_NAME "coordinator.witan"

enum { PKI_ROOT_DAYS = 3650, PKI_LEAF_DAYS = 397 };

/* Makes the folder (mode 0700; one that is there keeps its mode) with ca.pem, ca.key (cluster) and
 * door-ca.pem, door-ca.key (doors). Refuses to overwrite. `name`: of the cluster, in the subjects.
 */
enum status pki_init(const char *dir, const char *name, struct error *err);

/* Each writes NAME.pem (mode 0644) and NAME.key (mode 0600) into `out_dir`, which is made when it
 * is absent, signed by the root in `dir`. An older pair of that name is replaced; the
 * root's certificate is put beside it where there is none. `days`: 1 and up, not beyond the root's
 * end. */
enum status pki_issue_coordinator(const char *dir, const char *out_dir, const char *file_name,
                                  int days, struct error *err);
enum status pki_issue_worker(const char *dir, const char *out_dir, const char *file_name,
                             const char *group, const char *rank, const char *region, int days,
                             struct error *err);
/* A server certificate of the HTTP and gRPC doors; `names`: DNS names and addresses,
 * comma-separated. */
enum status pki_issue_door(const char *dir, const char *out_dir, const char *file_name,
                           const char *names, int days, struct error *err);

/* A folder that a coordinator and its ranks on one machine can use: a cluster root whose key is
 * never written, and one certificate of each role ("coordinator", "worker" for any group, rank and
 * region), valid as long as the root. */
enum status pki_ephemeral(const char *dir, struct error *err);

/* May a peer with these URIs (rpc_peer_uris: '\n' between) attach as this rank? ERR_INVALID says
 * what the certificate names instead. */
enum status pki_check_worker(const char *uris, const char *group, uint32_t rank, const char *region,
                             struct error *err);

/* May a peer with these URIs share groups, as a coordinator? ERR_INVALID says what its certificate
 * names instead. One that was issued before coordinators dialled each other names nothing. */
enum status pki_check_coordinator(const char *uris, struct error *err);

/* The three PEM texts of a role from the folder ("worker": ca.pem, worker.pem, worker.key; the root
 * of "door" is door-ca.pem). Refuses a key file that others can read (root's may be readable to a
 * group), a certificate that is not valid now, of another key or of another root. */
struct pki_files {
    char *ca, *cert, *key;
};
enum status pki_load(const char *dir, const char *role, struct pki_files *out, struct error *err);
void pki_files_fini(struct pki_files *f);

#endif
