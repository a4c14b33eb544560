// Package auth says who calls a server and what a caller may do.
//
// A caller is known by a bearer token, or, where there are no tokens, by the certificate
// that its connection began with. [Guard] identifies callers and bounds what each may take;
// [Tokens] is the file that it reads, again whenever that changes; [Procedures] is which
// scopes each procedure of the contract needs.
//
// A token is 256 random bits, and the file has its SHA-256 hash only: whoever reads the file
// can call nothing. What is looked up is the hash of what a caller has sent, which nobody can
// steer, so the time that it takes says nothing about the tokens there are. No error and no
// text of this package has anything of a token, nor of what stands where a hash should.
package auth
