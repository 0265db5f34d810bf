// Package check renders the kustomize bases of deploy as kubectl apply -k does, and decodes what comes out as
// the API server does when it is strict about fields.
package check
