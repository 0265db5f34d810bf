package main

import (
	"encoding/json"
	"log"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// call is a call as the suite reads it in the log of the driver's container.
type call struct {
	Method    string
	Request   any
	Error     string
	FullError fullError
}

type fullError struct {
	Code    codes.Code `json:"code"`
	Message string     `json:"message"`
}

// note writes a call to the log, its secrets included: the suite looks for them.
func note(method string, request any, err error) {
	c := call{Method: method, Request: request}
	if err != nil {
		c.Error = err.Error()
		c.FullError = fullError{Code: status.Code(err), Message: status.Convert(err).Message()}
	}

	text, err := json.Marshal(c)
	if err != nil {
		log.Printf("%s: %v", method, err)
		return
	}

	log.Printf("gRPCCall: %s", text)
}
