package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// answersFile takes the answers of a replay, as JSON Lines. One without a name takes none.
type answersFile struct {
	file *os.File
	w    *bufio.Writer
}

func newAnswersFile(path string) (*answersFile, error) {
	if path == "" {
		return &answersFile{}, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, usageError{fmt.Errorf("--answers: %w", err)}
	}
	return &answersFile{f, bufio.NewWriter(f)}, nil
}

// targetLine is an answer, as tandem feedback report reads it.
type targetLine struct {
	RequestID string   `json:"request_id"`
	AppIDs    []string `json:"app_ids"`
}

func (a *answersFile) add(requestID string, ids []string) error {
	if a.file == nil {
		return nil
	}
	line, err := json.Marshal(targetLine{requestID, ids})
	if err == nil {
		_, err = a.w.Write(append(line, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", a.file.Name(), err)
	}
	return nil
}

// end ends the file, and removes it where not all answers came.
func (a *answersFile) end(err error) error {
	if a.file == nil {
		return err
	}
	flushed := a.w.Flush()
	if err == nil {
		flushed = errors.Join(flushed, a.file.Sync())
	}
	flushed = errors.Join(flushed, a.file.Close())
	if err == nil && flushed == nil {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("write %s: %w", a.file.Name(), flushed)
	}
	return errors.Join(err, os.Remove(a.file.Name()))
}
