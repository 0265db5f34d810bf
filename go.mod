module github.com/trivet-node/trivet

go 1.26
