# cmake -D OUT=FILE.cc -D HEADER=H -D NAMESPACE=N -D "FILES=kName=PATH;..." -P embed.cmake
#
# Text files as constants of a program: extern const std::string_view kName.
set(text "#include \"${HEADER}\"\n\nnamespace ${NAMESPACE} {\n")
foreach(item IN LISTS FILES)
  string(REGEX MATCH "^([^=]+)=(.+)$" matched "${item}")
  set(name ${CMAKE_MATCH_1})
  file(READ "${CMAKE_MATCH_2}" content)
  string(FIND "${content}" ")embedded\"" ends)
  if(NOT ends EQUAL -1)
    message(FATAL_ERROR "${CMAKE_MATCH_2}: holds )embedded\", which ends the constant")
  endif()
  string(APPEND text "\nconst std::string_view ${name} = R\"embedded(${content})embedded\";\n")
endforeach()
file(WRITE "${OUT}" "${text}\n}  // namespace ${NAMESPACE}\n")
