# Programs from this distribution's libraries need no path to them: cmake -DFOLDER=... -P no_rpath.cmake
file(GLOB programs "${FOLDER}/bin/*" "${FOLDER}/lib/*.so")
foreach(program ${programs})
    file(RPATH_REMOVE FILE "${program}")
endforeach()
