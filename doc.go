// Package innate is the root of the module: managed identities for machines
// you own. There is nothing to import here; arch_test.go beside this file keeps
// the rules of who may import whom. Users' package is client: tokens and secrets
// for workloads.
package innate
