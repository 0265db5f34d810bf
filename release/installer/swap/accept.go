package swap

// Accept makes what has the seat the last order's wish: its failure counts no more. The order must be done.
func (f Folder) Accept() error {
	record, err := f.Record()
	if err != nil {
		return err
	}
	record.Order.To, record.Failure = record.State(), ""
	return f.write(recordFile, record)
}
