// Package e2e holds the stories that the built programs and unmodified SDKs
// play together. It is a module of its own, so that the SDKs stay out of the
// root go.mod; it imports nothing of Innate: the tests build its programs and
// run them as a user would.
//
//	go test ./...                     needs Node.js 20 (and npm once), curl and sh
//	INNATE_SKIP=node go test ./...    leaves out what needs node, by name
//
// programs/ and js/ are the workloads: what a user's own program looks like.
package e2e
